//! Arranges turns in the order that Gemma's templates need: one system text, then alternating user
//! and assistant turns, the user's first.

use crate::core::RolePolicy;
use crate::text::{Content, Message, Part, Role};

/// Arranges turns that are in another order.
///
/// Unless the policy is strict:
/// - several system messages, at any position, become one at the start, with blank lines between;
/// - adjacent turns of the same role become one, with a blank line between their texts (templates
///   put nothing between parts);
/// - if the first turn is not the user's, or there is no turn, an empty user turn is inserted:
///   without one, a template has no place for the system text or for an assistant's first turn.
///
/// All other messages stay unchanged, in the form that the client chose.
pub(super) fn arrange(messages: Vec<Message>, policy: RolePolicy) -> Vec<Message> {
    if policy == RolePolicy::Strict {
        return messages;
    }
    let (systems, turns): (Vec<_>, Vec<_>) = messages
        .into_iter()
        .partition(|message| message.role == Role::System);
    let mut arranged: Vec<Message> = Vec::with_capacity(turns.len() + 2);
    for system in systems {
        match arranged.last_mut() {
            None => arranged.push(system),
            Some(before) => join(&mut before.content, system.content),
        }
    }
    let first_turn = arranged.len();
    if turns.first().is_none_or(|turn| turn.role != Role::User) {
        arranged.push(Message {
            role: Role::User,
            content: Content::Text(String::new()),
        });
    }
    for turn in turns {
        match arranged[first_turn..].last_mut() {
            Some(before) if before.role == turn.role => join(&mut before.content, turn.content),
            _ => arranged.push(turn),
        }
    }
    arranged
}

/// Appends content, with a blank line between two texts. Next to an image the template writes one
/// anyway.
fn join(content: &mut Content, more: Content) {
    if let (Content::Text(text), Content::Text(more)) = (&mut *content, &more) {
        return join_text(text, more);
    }
    let mut parts = into_parts(std::mem::replace(content, Content::Parts(Vec::new())));
    for (part_idx, part) in into_parts(more).into_iter().enumerate() {
        match (parts.last_mut(), part) {
            (Some(Part::Text(text)), Part::Text(more)) if part_idx == 0 => join_text(text, &more),
            (_, part) => parts.push(part),
        }
    }
    *content = Content::Parts(parts);
}

/// Joins two texts. Templates trim the ends of a turn, so the ends that meet here are trimmed too.
fn join_text(text: &mut String, more: &str) {
    text.truncate(text.trim_end().len());
    let more = more.trim_start();
    if !text.is_empty() && !more.is_empty() {
        text.push_str("\n\n");
    }
    text.push_str(more);
}

fn into_parts(content: Content) -> Vec<Part> {
    match content {
        Content::Text(text) => vec![Part::Text(text)],
        Content::Parts(parts) => parts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(role: Role, text: &str) -> Message {
        Message {
            role,
            content: Content::Text(text.to_owned()),
        }
    }

    fn parts(role: Role, parts: &[Option<&str>]) -> Message {
        let parts = parts.iter().map(|text| match text {
            Some(text) => Part::Text((*text).to_owned()),
            None => Part::Image,
        });
        Message {
            role,
            content: Content::Parts(parts.collect()),
        }
    }

    use Role::{Assistant, System, User};

    #[test]
    fn what_is_in_order_stays_as_it_is() {
        let messages = vec![
            parts(System, &[Some(" a ")]),
            says(User, " b "),
            says(Assistant, "c"),
            parts(User, &[None, Some("d "), Some(" e")]),
        ];
        assert_eq!(arrange(messages.clone(), RolePolicy::Merge), messages);
    }

    #[test]
    fn turns_are_merged_and_the_user_begins() {
        for (messages, expected) in [
            (
                vec![says(User, "a \n"), says(User, "\n b"), says(User, "")],
                vec![says(User, "a\n\nb")],
            ),
            (
                vec![says(User, "a"), says(Assistant, "b"), says(Assistant, "c")],
                vec![says(User, "a"), says(Assistant, "b\n\nc")],
            ),
            (
                vec![says(System, "a"), says(User, "b"), says(System, "c")],
                vec![says(System, "a\n\nc"), says(User, "b")],
            ),
            (
                vec![says(User, "a"), says(System, "b"), says(User, "c")],
                vec![says(System, "b"), says(User, "a\n\nc")],
            ),
            (
                vec![says(Assistant, "a")],
                vec![says(User, ""), says(Assistant, "a")],
            ),
            (
                vec![says(System, "a")],
                vec![says(System, "a"), says(User, "")],
            ),
            (
                vec![parts(User, &[Some("a"), None]), says(User, "b")],
                vec![parts(User, &[Some("a"), None, Some("b")])],
            ),
            (
                vec![says(User, "a"), parts(User, &[Some("b"), Some("c"), None])],
                vec![parts(User, &[Some("a\n\nb"), Some("c"), None])],
            ),
        ] {
            assert_eq!(arrange(messages.clone(), RolePolicy::Strict), messages);
            assert_eq!(arrange(messages, RolePolicy::Merge), expected);
        }
    }
}
