//! Whose API a route is, as far as that shows outside its own handler.

/// The shape of errors, and the names of headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Everything that is not Anthropic's.
    OpenAi,
    /// `/v1/messages` and what lies below it.
    Anthropic,
}

impl Dialect {
    /// By the path alone, so that what is refused before its handler is refused in the right shape.
    pub(super) fn of_route(path: &str) -> Self {
        let path = path.strip_prefix("/v1").unwrap_or(path);
        match path.strip_prefix("/messages") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => Self::Anthropic,
            _ => Self::OpenAi,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_are_anthropics() {
        for path in [
            "/v1/messages",
            "/messages",
            "/v1/messages/count_tokens",
            "/messages/x",
        ] {
            assert_eq!(Dialect::of_route(path), Dialect::Anthropic, "{path}");
        }
        for path in [
            "/v1/messagesx",
            "/v1",
            "/",
            "/v1/chat/messages",
            "/v2/messages",
            "",
        ] {
            assert_eq!(Dialect::of_route(path), Dialect::OpenAi, "{path}");
        }
    }
}
