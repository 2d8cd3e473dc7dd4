//! Finds the hub token.

use std::io::ErrorKind;
use std::path::Path;

use crate::config::{HubToken, TokenChoice, hub_token};
use crate::error::{Error, Result};

/// Returns the token to send, if there is one.
///
/// # Errors
/// Returns `Config` for a file that cannot be read, and for a token that cannot be sent.
pub(super) fn find(choice: &TokenChoice) -> Result<Option<HubToken>> {
    match choice {
        TokenChoice::None => Ok(None),
        TokenChoice::Given(token) => hub_token(&token.0)
            .map(Some)
            .map_err(|wrong| Error::Config(format!("the hub's token cannot be sent: {wrong}"))),
        TokenChoice::File(file) => read(file).and_then(|text| match text {
            Some(text) => token_in(file, &text),
            None => Err(wrong(file, "there is no such file")),
        }),
        // Being logged in is optional.
        TokenChoice::Login(file) => match read(file)? {
            Some(text) if !text.trim().is_empty() => token_in(file, &text),
            _ => Ok(None),
        },
    }
}

fn read(file: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(wrong(file, &format!("it cannot be read: {error}"))),
    }
}

fn token_in(file: &Path, text: &str) -> Result<Option<HubToken>> {
    hub_token(text).map(Some).map_err(|what| wrong(file, &what))
}

fn wrong(file: &Path, what: &str) -> Error {
    Error::Config(format!("{}: the hub's token: {what}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_from_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let login = || find(&TokenChoice::Login(file.clone()));
        let named = || find(&TokenChoice::File(file.clone()));
        assert_eq!(login().unwrap(), None);
        assert!(named().unwrap_err().to_string().contains("no such file"));
        for text in ["", "\n"] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(login().unwrap(), None);
            assert!(named().unwrap_err().to_string().contains("empty"));
        }
        std::fs::write(&file, "hf_a\r\n").unwrap();
        let token = Some(HubToken("hf_a".to_owned()));
        assert_eq!(login().unwrap(), token);
        assert_eq!(named().unwrap(), token);
        std::fs::write(&file, "hf_a hf_b").unwrap();
        for error in [login().unwrap_err(), named().unwrap_err()] {
            let error = error.to_string();
            assert!(error.contains("token: the hub's token: it must be of visible"));
            assert!(!error.contains("hf_a"), "{error}");
        }
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert!(login().unwrap_err().to_string().contains("cannot be read"));
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let given = |text: &str| find(&TokenChoice::Given(HubToken(text.to_owned())));
        assert!(given("a b").is_err());
        assert_eq!(given("ab").unwrap(), Some(HubToken("ab".to_owned())));
        assert_eq!(find(&TokenChoice::None).unwrap(), None);
    }
}
