"""The openai client at /v1/responses."""

import openai
from messages import CROPPED, check_seen, png
from openai_chat import connect
from server import Server


def answers_and_counts(server: Server) -> None:
    answer = connect(server).responses.create(
        model="noise", instructions="Be brief.", input="Hello", max_output_tokens=8, temperature=0
    )
    assert answer.status in ("completed", "incomplete")
    assert answer.output_text == "".join(part.text for item in answer.output for part in item.content)
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


def streams_what_it_answers(server: Server) -> None:
    client = connect(server)
    # A choice ends by itself; noise that is cut off makes an incomplete response, which the client does not gather.
    schema = {"enum": ["a nodule in the left upper zone", "an effusion on the right"]}
    ends = dict(max_output_tokens=64, text={"format": {"type": "json_schema", "name": "finding", "schema": schema}})
    cut = dict(max_output_tokens=4, extra_body={"ignore_eos": True})
    for length, last in ((ends, "response.completed"), (cut, "response.incomplete")):
        wish = dict(model="noise", input="Stream this", temperature=0, **length)
        whole = client.responses.create(**wish)
        with client.responses.stream(**wish) as stream:
            events = list(stream)
        assert events[-1].type == last, events[-1]
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert text and text == whole.output_text == events[-1].response.output_text
        assert events[-1].response.usage.output_tokens == whole.usage.output_tokens
        numbers = [event.sequence_number for event in events]
        assert numbers == sorted(numbers)


def takes_images_and_a_history(server: Server) -> None:
    client = connect(server)
    parts = [{"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": png(32, 32)}]
    history = [{"role": "user", "content": parts}]
    first = client.responses.create(model="noise", input=history, max_output_tokens=4, temperature=0)
    assert first.usage.input_tokens > 256
    history += [item.model_dump(exclude_none=True) for item in first.output]
    history.append({"role": "user", "content": "Are you sure?"})
    second = client.responses.create(model="noise", input=history, max_output_tokens=4, temperature=0)
    assert second.usage.input_tokens > first.usage.input_tokens


def says_what_was_seen(server: Server) -> None:
    client = connect(server)
    image = png(96, 32)
    for part in ({"type": "input_image", "image_url": image}, {"type": "input_file", "file_data": image, "filename": "a"}):
        content = [part, {"type": "input_text", "text": "What is this?"}]
        schema = {"enum": ["a nodule", "an effusion"]}
        form = {"format": {"type": "json_schema", "name": "finding", "schema": schema}}
        wish = dict(model="noise", input=[{"role": "user", "content": content}], text=form, extra_body=CROPPED)
        answer = client.responses.create(**wish)
        check_seen(answer.model_extra["inputs"])
        assert answer.usage.input_tokens_details.images == 4
        with client.responses.stream(**wish) as stream:
            check_seen(list(stream)[-1].response.model_extra["inputs"])


def refuses_what_would_need_a_store(server: Server) -> None:
    client = connect(server)
    for wish in ({"previous_response_id": "resp_1"}, {"store": True}, {"background": True}):
        try:
            client.responses.create(model="noise", input="Hi", max_output_tokens=1, **wish)
        except openai.BadRequestError as error:
            assert [error.param] == list(wish)
            continue
        raise AssertionError(f"{wish} was taken")


CHECKS = [
    answers_and_counts,
    streams_what_it_answers,
    takes_images_and_a_history,
    says_what_was_seen,
    refuses_what_would_need_a_store,
]
