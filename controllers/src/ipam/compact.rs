//! Compact forms of what the cache keeps a hundred thousand times over: names, UIDs, resource versions.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// An object's UID: 16 bytes if it is a UUID in its usual spelling, else the text as it came.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Uid {
    /// A UUID, written in lower case with hyphens.
    Uuid([u8; 16]),
    /// Anything else, byte for byte. Owner references may hold any text.
    Text(Box<str>),
}

impl Uid {
    /// The compact form of `text`; [`Display`](fmt::Display) gives it back unchanged.
    pub fn new(text: &str) -> Self {
        match uuid::Uuid::try_parse(text) {
            Ok(uuid) if uuid.to_string() == text => Self::Uuid(uuid.into_bytes()),
            _ => Self::Text(text.into()),
        }
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(bytes) => uuid::Uuid::from_bytes(*bytes).fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// A resource version, given back to the API server verbatim. Never compared for order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Revision {
    /// A decimal number without leading zeros.
    Number(u64),
    /// Anything else.
    Text(Box<str>),
}

impl Revision {
    /// The compact form of `text`; [`Display`](fmt::Display) gives it back unchanged.
    pub fn new(text: &str) -> Self {
        match text.parse::<u64>() {
            Ok(number) if number.to_string() == text => Self::Number(number),
            _ => Self::Text(text.into()),
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// A string that occurs many times (a namespace, a cluster, a finalizer), as a number. See [`Names`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(u32);

/// Gives each distinct string one [`Name`], for the life of the process.
#[derive(Debug, Default)]
pub struct Names {
    ids: HashMap<Arc<str>, Name>,
    texts: Vec<Arc<str>>,
}

impl Names {
    /// The number of `text`, a new one if it was never seen.
    pub fn intern(&mut self, text: &str) -> Name {
        if let Some(name) = self.ids.get(text) {
            return *name;
        }
        let name = Name(u32::try_from(self.texts.len()).unwrap_or(u32::MAX));
        let text: Arc<str> = text.into();
        self.texts.push(text.clone());
        self.ids.insert(text, name);
        name
    }

    /// The number of `text`, if it was ever interned.
    pub fn find(&self, text: &str) -> Option<Name> {
        self.ids.get(text).copied()
    }

    /// The string behind a number.
    pub fn text(&self, name: Name) -> &Arc<str> {
        &self.texts[name.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_as_they_went_in() {
        for text in ["8d0d8ae9-8c2f-4b6e-9c57-0a8f2d1f3c11", "8D0D8AE9-8C2F-4B6E-9C57-0A8F2D1F3C11", "abc-dummy-123", ""] {
            assert_eq!(Uid::new(text).to_string(), text);
        }
        for text in ["0", "184467440737095516", "007", "", "a1", "99999999999999999999999"] {
            assert_eq!(Revision::new(text).to_string(), text);
        }
    }

    #[test]
    fn a_name_is_the_same_number_every_time() {
        let mut names = Names::default();
        let (a, b) = (names.intern("a"), names.intern("b"));
        assert_ne!(a, b);
        assert_eq!(names.intern("a"), a);
        assert_eq!(names.find("b"), Some(b));
        assert_eq!(names.find("c"), None);
        assert_eq!(&**names.text(a), "a");
    }
}
