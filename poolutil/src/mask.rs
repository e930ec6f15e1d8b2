//! Addresses put together from parts: each part gives the bits of its mask.

use std::net::IpAddr;

use crate::span::{Family, bits_of};

/// What is wrong with a set of masks that shall make up one address; the bits in question, as an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaskFlaws {
    /// Bits that more than one mask claims.
    pub overlap: Option<IpAddr>,
    /// Bits that no mask claims.
    pub gap: Option<IpAddr>,
}

/// Says whether the masks of the family give each bit to exactly one part. Masks of the other family count for nothing.
///
/// ```
/// use poolutil::{Family, MaskFlaws, mask_flaws};
/// let masks = ["255.255.255.0".parse()?, "0.0.255.0".parse()?];
/// let expected = MaskFlaws { overlap: Some("0.0.255.0".parse()?), gap: Some("0.0.0.255".parse()?) };
/// assert_eq!(mask_flaws(Family::V4, &masks), expected);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
pub fn mask_flaws(family: Family, masks: &[IpAddr]) -> MaskFlaws {
    let (mut seen, mut twice) = (0, 0);
    for mask in masks.iter().filter(|mask| Family::of(**mask) == family) {
        twice |= seen & bits_of(*mask);
        seen |= bits_of(*mask);
    }
    let some = |bits: u128| (bits != 0).then(|| family.ip(bits));
    MaskFlaws { overlap: some(twice), gap: some(family.max() & !seen) }
}

/// The address of a family whose bits come from the parts: of each answer those of its mask.
///
/// ```
/// use poolutil::{Family, merged};
/// let parts = [("255.255.255.240".parse()?, "203.0.113.16".parse()?), ("0.0.0.15".parse()?, "10.0.0.250".parse()?)];
/// assert_eq!(merged(Family::V4, parts).to_string(), "203.0.113.26");
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
pub fn merged(family: Family, parts: impl IntoIterator<Item = (IpAddr, IpAddr)>) -> IpAddr {
    let of_family = |ip: &IpAddr| Family::of(*ip) == family;
    let parts = parts.into_iter().filter(|(mask, answer)| of_family(mask) && of_family(answer));
    family.ip(parts.fold(0, |bits, (mask, answer)| bits | (bits_of(mask) & bits_of(answer))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flaws(family: Family, masks: &[&str]) -> (String, String) {
        let masks: Vec<IpAddr> = masks.iter().map(|mask| mask.parse().unwrap()).collect();
        let MaskFlaws { overlap, gap } = mask_flaws(family, &masks);
        let text = |bits: Option<IpAddr>| bits.map_or_else(String::new, |bits| bits.to_string());
        (text(overlap), text(gap))
    }

    #[test]
    fn masks_that_overlap_or_leave_a_gap_are_shown_by_their_bits() {
        // M9-M12, M15
        for (family, masks, overlap, gap) in [
            (Family::V4, &["255.255.0.0", "0.0.0.255"][..], "", "0.0.255.0"),
            (Family::V4, &["255.255.255.0", "0.0.255.255"], "0.0.255.0", ""),
            (Family::V4, &["127.255.255.255", "127.255.255.255", "0.0.0.1"], "127.255.255.255", "128.0.0.0"),
            (Family::V6, &["::ffff:ffff"], "", "ffff:ffff:ffff:ffff:ffff:ffff::"),
            (Family::V6, &["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::1"], "::1", ""),
            (Family::V4, &["255.0.255.0", "0.255.0.255"], "", ""),
            (Family::V4, &["255.255.255.255"], "", ""),
            (Family::V4, &[], "", "255.255.255.255"),
            (Family::V4, &["0.0.0.0", "255.255.255.255"], "", ""),
        ] {
            assert_eq!(flaws(family, masks), (overlap.to_owned(), gap.to_owned()), "{masks:?}");
        }
    }

    #[test]
    fn each_part_gives_the_bits_of_its_mask() {
        // M1-M8
        for (parts, result) in [
            (&[("255.255.0.0", "203.0.113.77"), ("0.0.255.0", "10.10.10.10"), ("0.0.0.255", "192.168.5.42")][..], "203.0.10.42"),
            (
                &[("ffff:ffff:ffff:ffff::", "2001:db8:aaaa:bbbb:1:2:3:4"), ("::ffff:ffff:ffff:ffff", "fd00:1:2:3:a:b:c:d")],
                "2001:db8:aaaa:bbbb:a:b:c:d",
            ),
            (
                &[("ffff:ffff:ffff:ff00::", "2001:db8:12:3400::1"), ("::ff:ffff:ffff:ffff:ffff", "fd00:0:0:42::25")],
                "2001:db8:12:3442::25",
            ),
            (&[("255.255.255.255", "198.51.100.9")], "198.51.100.9"),
            (&[("255.255.255.0", "198.51.100.1"), ("0.0.0.255", "10.0.0.8")], "198.51.100.8"),
            (&[("255.0.255.0", "1.2.3.4"), ("0.255.0.255", "5.6.7.8")], "1.6.3.8"),
            (&[("255.255.255.240", "203.0.113.16"), ("0.0.0.15", "10.0.0.250")], "203.0.113.26"),
            (&[("ffff:ffff:ffff:ffff:ffff:ffff::", "2001:db8::1"), ("::ffff:ffff", "64:ff9b::192.0.2.33")], "2001:db8::c000:221"),
        ] {
            let parts: Vec<(IpAddr, IpAddr)> =
                parts.iter().map(|(mask, answer)| (mask.parse().unwrap(), answer.parse().unwrap())).collect();
            assert_eq!(merged(Family::of(parts[0].0), parts).to_string(), result);
        }
    }
}
