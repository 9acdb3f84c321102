//! `[control]`: the settings of the status endpoint.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

/// Settings of the status endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlConfig {
    /// Where it listens; a loopback address, unless there is a token. Default 127.0.0.1:9180.
    pub listen: SocketAddr,
    /// What callers have to show; read from `token_file`. Default none.
    pub token: Option<Token>,
    /// Where the token was read, made absolute by the config file's folder. Default none.
    pub token_file: Option<PathBuf>,
    /// Whether a change of the config file is a reload. Default false.
    pub watch: bool,
    /// For how long figures are kept for reports, 1 minute to 1 day. Default 1 hour.
    pub history: Duration,
}

impl Default for ControlConfig {
    fn default() -> Self {
        ControlConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 9180)),
            token: None,
            token_file: None,
            watch: false,
            history: Duration::from_secs(3600),
        }
    }
}

/// A bearer token (RFC 6750): 16 to 1024 characters, each visible ASCII.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

impl Token {
    /// Takes the text of a token file, without blanks and line breaks around it.
    ///
    /// # Errors
    /// Says what is wrong, as the end of "the token ..."; never with the token.
    pub fn parse(text: &str) -> Result<Token, &'static str> {
        let token = text.trim();
        match token.len() {
            0 => Err("is empty"),
            short if short < TOKEN_MIN => Err("is shorter than 16 characters"),
            long if long > TOKEN_MAX => Err("is longer than 1024 characters"),
            _ if !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err("has characters that a header cannot tell, or more than one line")
            }
            _ => Ok(Token(token.into())),
        }
    }

    /// The secret itself, to compare with what a caller shows.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Never shows the token.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Shorter ones can be guessed.
const TOKEN_MIN: usize = 16;

/// As long as other headers are allowed to be.
const TOKEN_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_of_16_characters_or_more() {
        assert_eq!(Token::parse("  0123456789abcdef\r\n").unwrap().expose(), "0123456789abcdef");
        for (text, problem) in [
            ("", "is empty"),
            ("\n", "is empty"),
            ("0123456789abcde", "shorter"),
            (&"x".repeat(1025), "longer"),
            ("0123456789 abcdef", "cannot tell"),
            ("0123456789\nabcdef", "more than one line"),
            ("0123456789äbcdef", "cannot tell"),
        ] {
            assert!(Token::parse(text).unwrap_err().contains(problem), "{text:?}");
        }
        assert_eq!(format!("{:?}", Token::parse("0123456789abcdef")), "Ok(Token(..))");
    }
}
