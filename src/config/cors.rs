//! CORS settings: vLLM's four flags.

use clap::{ArgAction, Args, builder::BoolishValueParser};

/// CORS settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorsConfig {
    /// The sites, as browsers write them; none: no other site's page may use the server.
    pub origins: Vec<String>,
    /// The methods that they may use; `None` means every method that a route has.
    pub methods: Option<Vec<String>>,
    /// The headers that they may send; `None` means all.
    pub headers: Option<Vec<String>>,
    /// Whether their requests may include credentials that the browser stores for this server, such
    /// as a proxy's cookie.
    pub credentials: bool,
}

#[derive(Debug, Args)]
pub(super) struct CorsArguments {
    /// Other sites whose pages may use this server from a browser: an origin such as
    /// https://app.example.org, several by commas, or a JSON list as vLLM takes it; "*" is all
    /// [default: none]
    #[arg(
        long,
        value_name = "ORIGINS",
        env = "MEDGEMMA_ALLOWED_ORIGINS",
        value_parser = |text: &str| list(text, origin),
        help_heading = "Network"
    )]
    allowed_origins: Option<Listed>,

    /// Methods that those pages may use, in the same forms [default: all that a route has]
    #[arg(
        long,
        value_name = "METHODS",
        env = "MEDGEMMA_ALLOWED_METHODS",
        value_parser = |text: &str| list(text, token),
        help_heading = "Network"
    )]
    allowed_methods: Option<Listed>,

    /// Headers that those pages may send besides Accept, Accept-Language, Content-Language and
    /// Content-Type, in the same forms [default: all]
    #[arg(
        long,
        value_name = "HEADERS",
        env = "MEDGEMMA_ALLOWED_HEADERS",
        value_parser = |text: &str| list(text, token),
        help_heading = "Network"
    )]
    allowed_headers: Option<Listed>,

    /// Whether their requests may include credentials that the browser stores for this server:
    /// cookies of a proxy, client certificates. Not needed for API keys that a page sends itself
    #[arg(
        long,
        value_name = "BOOL",
        env = "MEDGEMMA_ALLOW_CREDENTIALS",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = ArgAction::Set,
        value_parser = BoolishValueParser::new(),
        help_heading = "Network"
    )]
    allow_credentials: bool,
}

impl CorsArguments {
    pub(super) fn resolve(self) -> CorsConfig {
        let some = |listed: Option<Listed>| {
            let names = listed?.0;
            (!names.iter().any(|name| name == "*")).then_some(names)
        };
        CorsConfig {
            origins: self.allowed_origins.map_or(Vec::new(), |origins| origins.0),
            methods: some(self.allowed_methods),
            headers: some(self.allowed_headers),
            credentials: self.allow_credentials,
        }
    }
}

/// The names in one value of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed(Vec<String>);

fn list(text: &str, read: fn(&str) -> Result<String, String>) -> Result<Listed, String> {
    let text = text.trim();
    let listed: Vec<String> = match text.starts_with('[') {
        true => serde_json::from_str(text)
            .map_err(|error| format!("it is no JSON list of strings: {error}"))?,
        false => text.split(',').map(|part| part.trim().to_owned()).collect(),
    };
    listed
        .iter()
        .map(|text| read(text))
        .collect::<Result<_, _>>()
        .map(Listed)
}

fn origin(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    let is_origin = text.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && !rest.is_empty() && !rest.contains(['/', '@', ' ', '*'])
    });
    if !is_origin && text != "*" {
        return Err(format!(
            "{text:?} is no origin: write it as https://app.example.org, without a path"
        ));
    }
    // A browser leaves out the port that its scheme has anyway.
    let lower = text.to_ascii_lowercase();
    let port = match lower.split_once("://") {
        Some(("https", _)) => ":443",
        Some(("http", _)) => ":80",
        _ => "",
    };
    Ok(lower.strip_suffix(port).unwrap_or(&lower).to_owned())
}

/// The name of a method or of a header.
fn token(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match !text.is_empty() && text.bytes().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "{text:?} is no name: write a JSON list such as [\"GET\", \"POST\"], or names by commas"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_in_three_ways() {
        let origins = |text| list(text, origin);
        let both = Ok(Listed(vec![
            "https://a".to_owned(),
            "http://b:1".to_owned(),
        ]));
        assert_eq!(origins(r#"["https://a", "http://b:1/"]"#), both);
        assert_eq!(origins("https://a/, http://b:1"), both);
        assert_eq!(origins("https://A:443, HTTP://b:1"), both);
        assert_eq!(origins("[]"), Ok(Listed(Vec::new())));
        assert_eq!(origins("[\"*\"]"), origins("*"));
        for wrong in [
            "a",
            "https://",
            "://a",
            "https://a/b",
            "[1]",
            "[",
            "",
            "https://*.a",
        ] {
            assert!(origins(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn methods_and_headers_are_names() {
        let names = |text| list(text, token);
        let both = Ok(Listed(vec!["GET".to_owned(), "X-A".to_owned()]));
        assert_eq!(names("GET, X-A"), both);
        assert_eq!(names("[\"GET\", \"X-A\"]"), both);
        for wrong in ["", "a b", "a:", "[\"a\\n\"]", "GET,,POST", "{}"] {
            assert!(names(wrong).is_err(), "{wrong}");
        }
    }
}
