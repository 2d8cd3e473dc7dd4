"""What the server says of itself at /metrics, read by Prometheus' own parser."""

import re
import urllib.error
import urllib.request
from dataclasses import replace

from messages import ask
from openai_chat import connect
from prometheus_client.parser import text_string_to_metric_families
from server import Server, serving

# What Kubernetes' inference gateway, llm-d and vLLM's dashboards read. The parser takes `_total` off
# a counter's name and knows the infos as what vLLM makes them: gauges.
ROUTERS_METRICS = {
    "vllm:num_requests_waiting": "gauge",
    "vllm:num_requests_running": "gauge",
    "vllm:kv_cache_usage_perc": "gauge",
    "vllm:cache_config_info": "gauge",
    "vllm:lora_requests_info": "gauge",
    "vllm:prompt_tokens": "counter",
    "vllm:generation_tokens": "counter",
    "vllm:request_success": "counter",
    "vllm:num_preemptions": "counter",
    "vllm:prefix_cache_queries": "counter",
    "vllm:prefix_cache_hits": "counter",
    "vllm:time_to_first_token_seconds": "histogram",
    "vllm:time_per_output_token_seconds": "histogram",
    "vllm:inter_token_latency_seconds": "histogram",
    "vllm:e2e_request_latency_seconds": "histogram",
    "vllm:request_queue_time_seconds": "histogram",
    "vllm:request_prefill_time_seconds": "histogram",
    "vllm:request_decode_time_seconds": "histogram",
    "vllm:request_inference_time_seconds": "histogram",
    "vllm:request_time_per_output_token_seconds": "histogram",
    "vllm:request_prompt_tokens": "histogram",
    "vllm:request_generation_tokens": "histogram",
    "vllm:request_max_num_generation_tokens": "histogram",
    "vllm:request_params_n": "histogram",
    "vllm:request_params_max_tokens": "histogram",
    "vllm:request_num_preemptions": "histogram",
    "vllm:iteration_tokens_total": "histogram",
    "vllm:mm_cache_queries": "counter",
    "vllm:mm_cache_hits": "counter",
    "medgemma:encoder_cache_hits": "counter",
    "medgemma:encoder_cache_misses": "counter",
    "medgemma:images_decoded": "counter",
    "medgemma:images_abandoned": "counter",
    "medgemma:request_memory_bytes": "gauge",
    "medgemma:requests_cancelled": "counter",
    "medgemma:engine_steps": "counter",
    "medgemma:auth_failures": "counter",
    "medgemma:log_lines_dropped": "counter",
}


def metrics_url(server: Server) -> str:
    return f"{server.address}/metrics"


def families(server: Server) -> dict:
    request = urllib.request.Request(metrics_url(server), headers={"Authorization": f"Bearer {server.key}"})
    with urllib.request.urlopen(request) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return {family.name: family for family in text_string_to_metric_families(answer.read().decode())}


def value(families: dict, name: str, **labels: str) -> float:
    family = families.get(name) or families[re.sub("_(total|count|sum)$", "", name)]
    (sample,) = (s for s in family.samples if s.name == name and labels.items() <= s.labels.items())
    return sample.value


def tells_routers_what_it_does(server: Server) -> None:
    client = connect(server)
    try:
        urllib.request.urlopen(metrics_url(server))
        raise AssertionError("metrics without a key")
    except urllib.error.HTTPError as error:
        assert error.code == 401

    before = families(server)
    for name, kind in ROUTERS_METRICS.items():
        assert before[name].type == kind, f"{name} is a {before[name].type}"
        for sample in before[name].samples:
            assert sample.labels["model_name"] == "noise"
    (cache,) = before["vllm:cache_config_info"].samples
    assert cache.value == 1 and int(cache.labels["block_size"]) > 0 and int(cache.labels["num_gpu_blocks"]) > 0
    assert {"max_lora", "running_lora_adapters", "waiting_lora_adapters"} <= set(
        before["vllm:lora_requests_info"].samples[0].labels
    )

    usage = client.chat.completions.create(
        model="noise", messages=ask("Count this"), max_tokens=6, extra_body={"ignore_eos": True}
    ).usage
    after = families(server)

    def moved(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert moved("vllm:prompt_tokens_total") == usage.prompt_tokens
    assert moved("vllm:generation_tokens_total") == 6
    assert moved("vllm:request_success_total", finished_reason="length") == 1
    assert moved("vllm:time_to_first_token_seconds_count") == 1
    assert moved("vllm:inter_token_latency_seconds_count") == 5
    assert moved("vllm:e2e_request_latency_seconds_count") == 1
    assert moved("vllm:request_generation_tokens_sum") == 6
    assert moved("vllm:request_params_max_tokens_sum") == 6
    assert moved("vllm:iteration_tokens_total_count") >= 6
    assert moved("vllm:prefix_cache_queries_total") > 0
    assert moved("medgemma:engine_steps_total") >= 6
    assert 0 <= value(after, "vllm:kv_cache_usage_perc") <= 1


def finds_what_it_computed_before(server: Server) -> None:
    client = connect(server)
    text = "A question that is long enough to fill several blocks of the cache. " * 8
    wish = dict(model="noise", messages=ask(text), max_tokens=4, temperature=0)

    def cached(**more) -> tuple[int, str]:
        answer = client.chat.completions.create(**wish, **more)
        return answer.usage.prompt_tokens_details.cached_tokens, answer.choices[0].message.content

    first, text_first = cached()
    again, text_again = cached()
    salted, text_salted = cached(extra_body={"cache_salt": "of my own"})
    assert first == 0 and again > 0 and salted == 0
    assert text_first == text_again == text_salted
    *_, last = client.chat.completions.create(**wish, stream=True, stream_options={"include_usage": True})
    assert last.usage.prompt_tokens_details.cached_tokens == again


def answers_to_one_prompt_share_it(server: Server) -> None:
    client = connect(server)
    before = families(server)
    client.chat.completions.create(model="noise", messages=ask("Three times the same, please. " * 20), max_tokens=4, n=3)
    assert value(families(server), "vllm:prefix_cache_hits_total") > value(before, "vllm:prefix_cache_hits_total")


def are_apart_where_clients_have_several_keys(server: Server) -> None:
    keys = ["--api-key", "another-key-for-this-run", "--metrics-key", "a-key-for-metrics-alone"]
    with serving(server.binary, *keys) as several:
        try:
            families(several)
            raise AssertionError("metrics with a client's key")
        except urllib.error.HTTPError as error:
            assert error.code == 403 and b"--metrics-key" in error.read()
        assert "vllm:num_requests_running" in families(replace(several, key="a-key-for-metrics-alone"))


CHECKS = [
    tells_routers_what_it_does,
    finds_what_it_computed_before,
    answers_to_one_prompt_share_it,
    are_apart_where_clients_have_several_keys,
]
