//! Kubernetes quantities (`250m`, `1.5Gi`, `2e3`), read exactly.
//!
//! The value is kept in thousandths, rounded up as the API server rounds. Where the API server caps silently a
//! number beyond 2^63 - 1, this refuses it: a limit that is not the one that was written helps nobody.

/// An amount in thousandths of its unit; at most 2^63 - 1 units in magnitude.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity {
    milli: i128,
}

/// Why a text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuantity {
    #[error("must not be empty")]
    Empty,
    #[error("must be a number such as `1`, `0.5` or `1e3`, with a unit or without")]
    NotANumber,
    #[error(
        "has the unknown unit `{0}`; units are n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei"
    )]
    Unit(String),
    #[error("is larger than 2^63 - 1")]
    TooLarge,
}

/// What a suffix multiplies by.
#[derive(Clone, Copy)]
enum Scale {
    /// A power of ten.
    Ten(i64),
    /// A power of 1024.
    Kibi(u32),
}

/// Nothing sensible is longer, and it bounds the work.
const MAX_LENGTH: usize = 256;
const MAX_MILLI: i128 = i64::MAX as i128 * 1000;

impl Quantity {
    /// Reads a quantity as Kubernetes defines it: a signed decimal number, then a binary unit (`Ki`), a decimal
    /// unit (`k`, `m`) or an exponent (`e3`).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidQuantity> {
        if text.is_empty() {
            return Err(InvalidQuantity::Empty);
        }
        if text.len() > MAX_LENGTH {
            return Err(InvalidQuantity::NotANumber);
        }
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, text.get(1..).unwrap_or_default()),
            Some(b'+') => (false, text.get(1..).unwrap_or_default()),
            _ => (false, text),
        };
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let scale = scale(suffix)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 || fraction.contains('.') {
            return Err(InvalidQuantity::NotANumber);
        }
        let milli = milli(whole, fraction, scale)?;
        Ok(Self {
            milli: if negative { -milli } else { milli },
        })
    }

    /// Thousandths, rounded away from zero.
    #[must_use]
    pub fn milli(self) -> i128 {
        self.milli
    }

    /// Whole units, rounded away from zero.
    #[must_use]
    pub fn value(self) -> i64 {
        let rounded = if self.milli < 0 {
            (self.milli - 999) / 1000
        } else {
            (self.milli + 999) / 1000
        };
        // `parse` keeps the magnitude within 2^63 - 1.
        i64::try_from(rounded).unwrap_or(i64::MAX)
    }

    /// An amount that was computed.
    #[must_use]
    pub fn from_milli(milli: i128) -> Self {
        Self { milli }
    }

    /// As the API server writes it back where `like` was written: a whole number with the largest unit that leaves one,
    /// of the kind of `like`'s (`CanonicalizeBytes`).
    #[must_use]
    pub fn written_like(self, like: &str) -> String {
        // What is less than a kibi, or not whole, has no binary unit.
        let is_binary =
            like.ends_with('i') && self.milli.abs() >= 1_024_000 && self.milli % 1000 == 0;
        let has_exponent = like.contains(['e', 'E']) && !like.ends_with(['E', 'i']);
        let (base, units): (i128, [&str; 7]) = if is_binary {
            (1024, ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
        } else if has_exponent {
            (1000, ["", "e3", "e6", "e9", "e12", "e15", "e18"])
        } else {
            (1000, ["", "k", "M", "G", "T", "P", "E"])
        };
        if base == 1000 && self.milli % 1000 != 0 {
            let unit = if has_exponent { "e-3" } else { "m" };
            return format!("{}{unit}", self.milli);
        }
        let (mut whole, mut unit) = (i128::from(self.value()), "");
        for larger in units.iter().skip(1) {
            if whole == 0 || whole % base != 0 {
                break;
            }
            (whole, unit) = (whole / base, larger);
        }
        format!("{whole}{unit}")
    }

    /// Whether it is below zero.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self.milli < 0
    }
}

fn scale(suffix: &str) -> Result<Scale, InvalidQuantity> {
    Ok(match suffix {
        "" => Scale::Ten(0),
        "n" => Scale::Ten(-9),
        "u" => Scale::Ten(-6),
        "m" => Scale::Ten(-3),
        "k" => Scale::Ten(3),
        "M" => Scale::Ten(6),
        "G" => Scale::Ten(9),
        "T" => Scale::Ten(12),
        "P" => Scale::Ten(15),
        "E" => Scale::Ten(18),
        "Ki" => Scale::Kibi(1),
        "Mi" => Scale::Kibi(2),
        "Gi" => Scale::Kibi(3),
        "Ti" => Scale::Kibi(4),
        "Pi" => Scale::Kibi(5),
        "Ei" => Scale::Kibi(6),
        _ => Scale::Ten(exponent(suffix).ok_or_else(|| InvalidQuantity::Unit(suffix.to_owned()))?),
    })
}

/// `e3`, `E-2`.
fn exponent(suffix: &str) -> Option<i64> {
    let digits = suffix.strip_prefix(['e', 'E'])?;
    // Rust takes the same signs as Kubernetes here. What does not fit is as good as infinite.
    let unsigned = digits.strip_prefix(['-', '+']).unwrap_or(digits);
    if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let magnitude = unsigned.parse::<i64>().unwrap_or(i64::MAX).min(1 << 40);
    Some(if digits.starts_with('-') {
        -magnitude
    } else {
        magnitude
    })
}

/// The magnitude in thousandths. Works on decimal digits, so that nothing is lost before the rounding.
fn milli(whole: &str, fraction: &str, scale: Scale) -> Result<i128, InvalidQuantity> {
    let mut digits: Vec<u8> = whole
        .bytes()
        .chain(fraction.bytes())
        .map(|byte| byte - b'0')
        .collect();
    let exponent = match scale {
        Scale::Ten(power) => power,
        Scale::Kibi(times) => {
            (0..times).for_each(|_| multiply(&mut digits, 1024));
            0
        }
    };
    // The value is `digits` (as one integer) times 10^power, in thousandths. Both terms are short texts' lengths.
    let power = exponent + 3 - i64::try_from(fraction.len()).unwrap_or(i64::MAX);
    let significant = digits.iter().position(|digit| *digit != 0);
    let Some(digits) = significant.and_then(|start| digits.get(start..)) else {
        return Ok(0);
    };
    let places = i64::try_from(digits.len()).unwrap_or(i64::MAX) + power;
    if places > 22 {
        return Err(InvalidQuantity::TooLarge);
    }
    let kept = digits.len().min(usize::try_from(places).unwrap_or(0));
    let (head, tail) = digits.split_at(kept);
    let mut value = head
        .iter()
        .fold(0_i128, |sum, digit| sum * 10 + i128::from(*digit));
    for _ in 0..power.max(0) {
        value *= 10;
    }
    if tail.iter().any(|digit| *digit != 0) {
        value += 1;
    }
    if value > MAX_MILLI {
        return Err(InvalidQuantity::TooLarge);
    }
    Ok(value)
}

/// Multiplies a decimal number, most significant digit first.
fn multiply(digits: &mut Vec<u8>, factor: u32) {
    let mut carry = 0_u32;
    for digit in digits.iter_mut().rev() {
        let product = u32::from(*digit) * factor + carry;
        // A remainder of ten is below ten.
        *digit = (product % 10) as u8;
        carry = product / 10;
    }
    let mut front = Vec::new();
    while carry > 0 {
        front.push((carry % 10) as u8);
        carry /= 10;
    }
    digits.splice(0..0, front.into_iter().rev());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantities_are_exact_in_thousandths() {
        let check = |text: &str, expected: i128| {
            let parsed = Quantity::parse(text).map(Quantity::milli);
            assert_eq!(parsed, Ok(expected), "{text:?}");
        };
        check("0", 0);
        check("1", 1000);
        check("1.", 1000);
        check(".5", 500);
        check("+1", 1000);
        check("-1.5", -1500);
        check("100m", 100);
        check("0.1m", 1);
        check("1n", 1);
        check("-1n", -1);
        check("1500u", 2);
        check("1k", 1_000_000);
        check("1Ki", 1_024_000);
        check("1.5Gi", 1_610_612_736_000);
        check("0.0009765625Ki", 1000);
        check("0.00097656250001Ki", 1001);
        check("1e3", 1_000_000);
        check("1E3", 1_000_000);
        check("1E", 1_000_000_000_000_000_000_000);
        check("5e-4", 1);
        check("1e-999999999999999999999", 1);
        check("0e999999999999999999999", 0);
        check("7Ei", (7_i128 << 60) * 1000);
        check("9223372036854775807", MAX_MILLI);
        check("00000000000000000000000000000001", 1000);
    }

    #[test]
    fn what_is_no_quantity_says_why() {
        let check = |text: &str, expected: InvalidQuantity| {
            assert_eq!(Quantity::parse(text), Err(expected), "{text:?}");
        };
        check("", InvalidQuantity::Empty);
        for text in ["-", ".", "Mi", "1.2.3", "+-1"] {
            let error = Quantity::parse(text).expect_err(text);
            assert!(
                matches!(
                    error,
                    InvalidQuantity::NotANumber | InvalidQuantity::Unit(_)
                ),
                "{text}"
            );
        }
        check("1KB", InvalidQuantity::Unit("KB".into()));
        check("1 Gi", InvalidQuantity::Unit(" Gi".into()));
        check("1e", InvalidQuantity::Unit("e".into()));
        check("1e1.5", InvalidQuantity::Unit("e1.5".into()));
        check("8Ei", InvalidQuantity::TooLarge);
        check("9223372036854775807.001", InvalidQuantity::TooLarge);
        check("1e30", InvalidQuantity::TooLarge);
        check(&"1".repeat(300), InvalidQuantity::NotANumber);
    }

    #[test]
    fn quantities_are_written_as_kubernetes_writes_them() {
        let check = |text: &str, expected: &str| {
            let quantity = Quantity::parse(text).unwrap();
            assert_eq!(quantity.written_like(text), expected, "{text}");
        };
        check("0", "0");
        check("0Ki", "0");
        check("1000m", "1");
        check("0.5", "500m");
        check("1500m", "1500m");
        check("1000", "1k");
        check("-2000k", "-2M");
        check("1024", "1024");
        check("1024Ki", "1Mi");
        check("1.5Gi", "1536Mi");
        check("1025Mi", "1025Mi");
        // What is less than a kibi has no such unit.
        check("0.5Ki", "512");
        check("1000.1Ki", "1024102400m");
        check("1e3", "1e3");
        check("10e2", "1e3");
        check("1e-3", "1e-3");
        check("1E", "1E");
        check("1Ei", "1Ei");
        check("0Mi", "0");
        check("-0.0", "0");
        check("0.0001", "1m");
        check("1.0", "1");
        check("+1", "1");
        check("-1.5", "-1500m");
        check("1500", "1500");
        check("100000", "100k");
        check("64Mi", "64Mi");
        check("65536Ki", "64Mi");
        check("1024Mi", "1Gi");
        check("1536Mi", "1536Mi");
        check("1Ki", "1Ki");
        check("1.0009765625Ki", "1025");
        check("1.0001Ki", "1024103m");
        check("7Ei", "7Ei");
        check("12e5", "1200e3");
        check("5e-1", "500e-3");
        check("1e0", "1");
        check("500u", "1m");
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "\\PC{0,40}") {
            let _answer = Quantity::parse(&text);
        }

        #[test]
        fn thousandths_agree_with_the_same_number_in_other_units(amount in 0_u32..=u32::MAX) {
            let of = |text: String| Quantity::parse(&text).map(Quantity::milli);
            prop_assert_eq!(of(format!("{amount}m")), Ok(i128::from(amount)));
            prop_assert_eq!(of(format!("{amount}")), of(format!("{amount}000m")));
            prop_assert_eq!(of(format!("{amount}Mi")), of(format!("{}", u64::from(amount) << 20)));
            prop_assert_eq!(of(format!("{amount}e-3")), Ok(i128::from(amount)));
            prop_assert_eq!(of(format!("{amount}M")), of(format!("{amount}e6")));
        }

        #[test]
        fn what_is_written_again_is_the_same(whole in 0_u64..1_000_000, nano in 0_u32..1_000_000_000, unit in 0_usize..16) {
            let units = ["", "n", "u", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti", "e3", "e-3", "E2", "e0"];
            let text = format!("{whole}.{nano:09}{}", units[unit]);
            let again = |text: &str| Quantity::parse(text).map(|quantity| quantity.written_like(text));
            let once = again(&text).expect("a quantity");
            prop_assert_eq!(Quantity::parse(&once), Quantity::parse(&text));
            prop_assert_eq!(again(&once), Ok(once));
        }

        #[test]
        fn rounding_is_up_and_less_than_one_thousandth(whole in 0_u64..1_000_000, nano in 0_u64..1_000_000_000) {
            let exact = i128::from(whole) * 1_000_000_000 + i128::from(nano);
            let milli = Quantity::parse(&format!("{whole}.{nano:09}")).map(Quantity::milli).expect("a number");
            prop_assert!(milli * 1_000_000 >= exact && milli * 1_000_000 - exact < 1_000_000);
        }
    }
}
