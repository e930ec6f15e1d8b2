//! Compact forms of what the cache keeps a hundred thousand times over: names, lists, UIDs, versions, times, addresses.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;

use poolutil::{Family, Span};

/// An object's UID, in 16 bytes if it is a UUID in its usual spelling, else the text as it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Uid {
    /// A UUID, written in lower case with hyphens. The second half of one that is in use has its highest bit set.
    Uuid(u64, NonZeroU64),
    /// Anything else, byte for byte. Owner references may hold any text.
    Text(Box<Box<str>>),
}

impl Uid {
    /// The compact form of `text`; [`Display`](fmt::Display) gives it back unchanged.
    pub fn new(text: &str) -> Self {
        let mut spelling = uuid::Uuid::encode_buffer();
        let uuid = uuid::Uuid::try_parse(text).ok().filter(|uuid| uuid.hyphenated().encode_lower(&mut spelling) == text);
        let halves = uuid.map(|uuid| uuid.as_u64_pair());
        match halves.and_then(|(high, low)| Some((high, NonZeroU64::new(low)?))) {
            Some((high, low)) => Self::Uuid(high, low),
            None => Self::Text(Box::new(text.into())),
        }
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(high, low) => uuid::Uuid::from_u64_pair(*high, low.get()).fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// A resource version, given back to the API server verbatim. Compared for order only between a claim and its address.
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

/// Whole seconds since the epoch, from its first to the year 2106; what lies outside is taken for the nearer end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(NonZeroU32);

impl Seconds {
    /// The compact form of a number of seconds.
    pub fn new(seconds: i64) -> Self {
        let seconds = u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
        Self(NonZeroU32::new(seconds).unwrap_or(NonZeroU32::MIN))
    }

    /// Seconds since the epoch.
    pub fn get(self) -> i64 {
        self.0.get().into()
    }
}

/// A [`Span`] without the padding that makes arithmetic fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    ip: IpAddr,
    length: u8,
}

impl Packed {
    /// The compact form of `span`.
    pub fn new(span: Span) -> Self {
        Self { ip: span.ip(), length: span.length() }
    }

    /// What went in.
    pub fn span(self) -> Option<Span> {
        let address = match self.ip {
            IpAddr::V4(ip) => ip.to_bits().into(),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        Span::new(Family::of(self.ip), address, self.length)
    }
}

/// A string that occurs many times (a namespace, a cluster, a finalizer), as a number. See [`Names`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(NonZeroU32);

/// A list of strings that occurs many times (the finalizers of an object), as a number. See [`Names`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct List(NonZeroU32);

/// Gives each distinct string one [`Name`] and each distinct list one [`List`], for the life of the process.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
pub struct Names {
    strings: Numbers<str>,
    lists: Numbers<[Name]>,
}

/// Numbers distinct values from 1.
#[derive(Debug)]
struct Numbers<T: ?Sized> {
    numbers: HashMap<Arc<T>, NonZeroU32>,
    values: Vec<Arc<T>>,
}

#[cfg(test)]
impl<T: ?Sized> Clone for Numbers<T> {
    fn clone(&self) -> Self {
        Self { numbers: self.numbers.clone(), values: self.values.clone() }
    }
}

impl<T: ?Sized> Default for Numbers<T> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), values: Vec::new() }
    }
}

impl<T: ?Sized + Eq + Hash> Numbers<T> {
    fn number(&mut self, value: &T) -> NonZeroU32
    where
        Arc<T>: for<'a> From<&'a T>,
    {
        if let Some(number) = self.numbers.get(value) {
            return *number;
        }
        let value: Arc<T> = value.into();
        self.values.push(value.clone());
        let number = u32::try_from(self.values.len()).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX);
        self.numbers.insert(value, number);
        number
    }

    fn value(&self, number: NonZeroU32) -> &Arc<T> {
        &self.values[number.get() as usize - 1]
    }
}

impl Names {
    /// The number of `text`, a new one if it was never seen.
    pub fn intern(&mut self, text: &str) -> Name {
        Name(self.strings.number(text))
    }

    /// The number of a list, a new one if it was never seen.
    pub fn intern_list(&mut self, texts: &[String]) -> List {
        let names: Vec<Name> = texts.iter().map(|text| self.intern(text)).collect();
        List(self.lists.number(&names))
    }

    /// The number of `text`, if it was ever interned.
    pub fn find(&self, text: &str) -> Option<Name> {
        self.strings.numbers.get(text).copied().map(Name)
    }

    /// The string behind a number.
    pub fn text(&self, name: Name) -> &Arc<str> {
        self.strings.value(name.0)
    }

    /// The strings behind the number of a list.
    pub fn texts(&self, list: List) -> Vec<String> {
        self.lists.value(list.0).iter().map(|name| self.text(*name).to_string()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_as_they_went_in() {
        for text in [
            "8d0d8ae9-8c2f-4b6e-9c57-0a8f2d1f3c11",
            "8D0D8AE9-8C2F-4B6E-9C57-0A8F2D1F3C11",
            "abc-dummy-123",
            "",
            "00000000-0000-0000-0000-000000000000",
        ] {
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

    #[test]
    fn a_list_is_the_same_number_in_the_same_order_only() {
        let mut names = Names::default();
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let (empty, ab, ba) = (list(&[]), list(&["a", "b"]), list(&["b", "a"]));
        let numbers = [&empty, &ab, &ba].map(|list| names.intern_list(list));
        assert_eq!([&empty, &ab, &ba].map(|list| names.intern_list(list)), numbers);
        assert_eq!(numbers.map(|number| names.texts(number)), [empty, ab, ba]);
    }

    #[test]
    fn seconds_stay_within_their_range() {
        for (seconds, kept) in [(i64::MIN, 1), (0, 1), (1_764_000_000, 1_764_000_000), (i64::MAX, i64::from(u32::MAX))] {
            assert_eq!(Seconds::new(seconds).get(), kept);
        }
    }

    #[test]
    fn a_packed_value_is_the_same_value() {
        for (address, length) in [("10.0.0.7", 32), ("10.0.0.0", 24), ("0.0.0.0", 0), ("fd00::7", 128), ("fd00:1::", 32)] {
            let span = Span::parse(address, length).unwrap();
            assert_eq!(Packed::new(span).span(), Some(span));
        }
    }

    #[test]
    fn what_is_kept_a_hundred_thousand_times_is_small() {
        assert_eq!((size_of::<Uid>(), size_of::<Revision>(), size_of::<Option<Packed>>()), (16, 16, 18));
        assert_eq!((size_of::<Option<Seconds>>(), size_of::<Option<Name>>(), size_of::<List>()), (4, 4, 4));
    }
}
