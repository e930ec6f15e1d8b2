//! How the structs of this crate read and write single fields: one odd object must never stop a watch.

use serde::{Deserialize, Deserializer};

/// Reads `null` as if the key were missing. Pools that an older converter stored hold `addresses: null`.
pub(crate) fn null_is_absent<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Whether an optional number is left out when written.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(crate) fn is_zero(number: &i64) -> bool {
    *number == 0
}
