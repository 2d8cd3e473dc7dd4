//! Which API a route belongs to, for code outside the route's handler.

/// The API style: the format of errors and the names of headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// OpenAI's style: all routes except Anthropic's.
    OpenAi,
    /// Anthropic's style: `/v1/messages` and the routes below it.
    Anthropic,
}

impl Dialect {
    /// Determines the dialect from the path alone, so that errors before the handler have the right
    /// format too.
    pub(crate) fn of_route(path: &str) -> Self {
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
