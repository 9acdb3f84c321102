//! The token that opens the endpoint: long enough to not be guessed, compared in constant time, never shown.

use std::{fmt, fmt::Write as _};

use subtle::ConstantTimeEq as _;

/// Fewest characters of a token that somebody chose: 16.
pub const TOKEN_MIN: usize = 16;

/// Most of them: 4096.
const TOKEN_MAX: usize = 4096;

/// A token. `Debug` does not show it.
#[derive(Clone)]
pub struct Token(Box<str>);

/// Why a text is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenError {
    /// It has fewer than [`TOKEN_MIN`] characters.
    Short,
    /// It has more than 4,096.
    Long,
    /// It has a character that a header cannot carry: anything but visible ASCII.
    Character,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenError::Short => write!(f, "has fewer than {TOKEN_MIN} characters"),
            TokenError::Long => write!(f, "has more than {TOKEN_MAX} characters"),
            TokenError::Character => f.write_str("has a character that is not visible ASCII"),
        }
    }
}

impl std::error::Error for TokenError {}

impl Token {
    /// Takes a text as the token, without the white space around it.
    ///
    /// # Errors
    /// When it is too short, too long, or cannot stand in a header.
    pub fn new(text: &str) -> Result<Token, TokenError> {
        let text = text.trim();
        match text.len() {
            ..TOKEN_MIN => Err(TokenError::Short),
            TOKEN_MIN..=TOKEN_MAX if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Token(text.into())),
            TOKEN_MIN..=TOKEN_MAX => Err(TokenError::Character),
            _ => Err(TokenError::Long),
        }
    }

    /// 128 random bits.
    pub(crate) fn random() -> Token {
        let mut text = String::with_capacity(32);
        for byte in rand::random::<[u8; 16]>() {
            write!(text, "{byte:02x}").expect("writing to a string does not fail");
        }
        Token(text.into())
    }

    /// Whether it is this text; takes as long for a wrong one of the same length as for the right one.
    pub(crate) fn is(&self, text: &str) -> bool {
        self.0.as_bytes().ct_eq(text.as_bytes()).into()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The value of an `Authorization` header that carries it.
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Token) -> bool {
        self.is(&other.0)
    }
}

impl Eq for Token {}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_long_visible_and_not_shown() {
        assert_eq!(Token::new("short"), Err(TokenError::Short));
        assert_eq!(Token::new("with a space inside it"), Err(TokenError::Character));
        assert_eq!(Token::new(&"x".repeat(5000)), Err(TokenError::Long));
        let token = Token::new(" 0123456789abcdef\n").unwrap();
        assert!(token.is("0123456789abcdef") && !token.is("0123456789abcdeF") && !token.is(""));
        assert_eq!(format!("{token:?}"), "Token");
        assert_ne!(Token::random(), Token::random());
    }
}
