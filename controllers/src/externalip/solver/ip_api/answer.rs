//! Reads the one address out of what a web service sent. Called by `ip_api` with at most 16 KiB.

use std::net::IpAddr;

use poolutil::{Family, parse_plain_ip};
use serde::Deserialize;
use serde_json::Value;

use super::{endpoint::Shape, family_name};
use crate::externalip::{
    answers::{Failure, FailureKind},
    solver::failure,
};

/// No text of an address is longer.
const MOST_TEXT: usize = 64;

#[derive(Deserialize)]
struct MyIp {
    success: bool,
    ip: String,
    #[serde(rename = "type")]
    family: String,
}

/// The address that a body of this shape holds; it must be of the family.
pub(super) fn address(shape: &Shape, family: Family, body: &[u8]) -> Result<IpAddr, Failure> {
    let text = match shape {
        Shape::MyIp => my_ip(family, body)?,
        Shape::Json(keys) => {
            let value: Value = serde_json::from_slice(body).map_err(|_| bad("the answer is no JSON"))?;
            let found = keys.iter().try_fold(&value, |value, key| value.get(key)).and_then(Value::as_str);
            found.ok_or_else(|| bad(format!("the answer has no text at {}", keys.join("."))))?.to_owned()
        }
        Shape::Text => text(body)?.trim().to_owned(),
        Shape::Trace => {
            let line = text(body)?.lines().find_map(|line| line.strip_prefix("ip="));
            line.ok_or_else(|| bad("the answer has no line with ip="))?.trim_end().to_owned()
        }
    };
    if text.len() > MOST_TEXT {
        return Err(bad(format!("the answer has {} bytes where an address should be", text.len())));
    }
    let address = parse_plain_ip(&text).map_err(|_| bad("the answer holds something else than one address"))?;
    if Family::of(address) != family {
        return Err(wrong_family(family));
    }
    Ok(address)
}

fn my_ip(family: Family, body: &[u8]) -> Result<String, Failure> {
    let answer: MyIp = serde_json::from_slice(body).map_err(|_| bad("the answer is not the JSON of my-ip.io"))?;
    if !answer.success {
        return Err(bad("the answer says that it is no success"));
    }
    if answer.family != family_name(family) {
        return Err(wrong_family(family));
    }
    Ok(answer.ip)
}

fn text(body: &[u8]) -> Result<&str, Failure> {
    std::str::from_utf8(body).map_err(|_| bad("the answer is no text"))
}

fn bad(text: impl Into<String>) -> Failure {
    failure(FailureKind::BadAnswer, text)
}

fn wrong_family(family: Family) -> Failure {
    failure(FailureKind::WrongFamily, format!("the answer is no {} address", family_name(family)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(shape: &Shape, family: Family, body: &str) -> Result<String, &'static str> {
        address(shape, family, body.as_bytes()).map(|ip| ip.to_string()).map_err(|failure| failure.kind.as_str())
    }

    #[test]
    fn each_shape_holds_one_address() {
        let nested = Shape::Json(vec!["data".to_owned(), "ip".to_owned()]);
        let flat = Shape::Json(vec!["ip".to_owned()]);
        for (shape, family, body, expected) in [
            (&Shape::Text, Family::V4, "203.0.113.9\n", "203.0.113.9"),
            (&Shape::Text, Family::V6, " 2001:DB8::9 ", "2001:db8::9"),
            (&Shape::Trace, Family::V4, "fl=1\nh=x\nip=203.0.113.9\r\nts=2\n", "203.0.113.9"),
            (&flat, Family::V4, r#"{"ip": "203.0.113.9", "more": [1]}"#, "203.0.113.9"),
            (&nested, Family::V6, r#"{"data": {"ip": "2001:db8::9"}}"#, "2001:db8::9"),
            (&Shape::MyIp, Family::V4, r#"{"success":true,"ip":"203.0.113.9","type":"IPv4","asn":1}"#, "203.0.113.9"),
            (&Shape::MyIp, Family::V6, r#"{"success":true,"ip":"2001:db8::9","type":"IPv6"}"#, "2001:db8::9"),
        ] {
            assert_eq!(read(shape, family, body), Ok(expected.to_owned()), "{body}");
        }
    }

    #[test]
    fn an_answer_of_the_other_family_is_told_apart_from_a_bad_one() {
        let flat = Shape::Json(vec!["ip".to_owned()]);
        for (shape, body, kind) in [
            (&Shape::Text, "2001:db8::9", "WrongFamily"),
            (&Shape::Text, "::ffff:203.0.113.9", "WrongFamily"),
            (&Shape::MyIp, r#"{"success":true,"ip":"203.0.113.9","type":"IPv6"}"#, "WrongFamily"),
            (&Shape::MyIp, r#"{"success":true,"ip":"2001:db8::9","type":"IPv4"}"#, "WrongFamily"),
            (&Shape::MyIp, r#"{"success":false,"ip":"203.0.113.9","type":"IPv4"}"#, "BadAnswer"),
            (&Shape::MyIp, r#"{"ip":"203.0.113.9","type":"IPv4"}"#, "BadAnswer"),
            (&Shape::MyIp, r#"{"success":true,"ip":"203.0.113.9"}"#, "BadAnswer"),
            (&Shape::Text, "", "BadAnswer"),
            (&Shape::Text, "203.0.113.9 203.0.113.10", "BadAnswer"),
            (&Shape::Text, "203.0.113.9/32", "BadAnswer"),
            (&Shape::Text, "203.0.113.009", "BadAnswer"),
            (&Shape::Text, "<html>", "BadAnswer"),
            (&flat, "203.0.113.9", "BadAnswer"),
            (&flat, r#"{"ip": ["203.0.113.9"]}"#, "BadAnswer"),
            (&flat, r#"{"address": "203.0.113.9"}"#, "BadAnswer"),
            (&Shape::Trace, "203.0.113.9", "BadAnswer"),
        ] {
            assert_eq!(read(shape, Family::V4, body), Err(kind), "{body}");
        }
        assert_eq!(address(&Shape::Text, Family::V4, &[0xff]).unwrap_err().kind, FailureKind::BadAnswer);
    }

    #[test]
    fn nothing_of_a_bad_answer_is_repeated() {
        let body = format!(r#"{{"ip": "{}"}}"#, "secret".repeat(11));
        let failure = address(&Shape::Json(vec!["ip".to_owned()]), Family::V4, body.as_bytes()).unwrap_err();
        assert_eq!(failure.text, "the answer has 66 bytes where an address should be");
        let failure = address(&Shape::Text, Family::V4, b"secret").unwrap_err();
        assert_eq!(failure.text, "the answer holds something else than one address");
    }
}
