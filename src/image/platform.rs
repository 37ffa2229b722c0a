//! Platforms: which of an index's images fits this machine.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An operating system and processor, in Go's words: `linux/arm64/v8`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    /// `v7` and the like; empty is the architecture's usual one.
    #[serde(default)]
    pub variant: String,
}

/// A text that is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform such as `linux/amd64` or `linux/arm/v7`")]
pub struct InvalidPlatform(String);

impl Platform {
    /// This machine's.
    #[must_use]
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "aarch64" => ("arm64", ""),
            "x86" => ("386", ""),
            "arm" => ("arm", "v7"),
            "powerpc64" => ("ppc64le", ""),
            "loongarch64" => ("loong64", ""),
            other => (other, ""),
        };
        Self {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: variant.into(),
        }
    }

    /// Reads `OS/ARCHITECTURE[/VARIANT]`, or an architecture of Linux.
    ///
    /// # Errors
    /// The text is none of these.
    pub fn parse(text: &str) -> Result<Self, InvalidPlatform> {
        let parts: Vec<&str> = text.split('/').collect();
        let well_formed = parts.iter().all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
        });
        let (os, architecture, variant) = match (well_formed, parts.as_slice()) {
            (true, [architecture]) => ("linux", *architecture, ""),
            (true, [os, architecture]) => (*os, *architecture, ""),
            (true, [os, architecture, variant]) => (*os, *architecture, *variant),
            _ => return Err(InvalidPlatform(text.to_owned())),
        };
        let architecture = match architecture {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            "i386" => "386",
            other => other,
        };
        Ok(Self {
            os: os.to_ascii_lowercase(),
            architecture: architecture.into(),
            variant: variant.into(),
        })
    }

    /// How well `offered` runs here: 0 is best, `None` is not at all.
    #[must_use]
    pub fn rank(&self, offered: &Self) -> Option<usize> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        self.variants()
            .iter()
            .position(|variant| *variant == offered.variant)
    }

    /// The variants that run here, the best first, as containers/image has them (`platform_matcher.go`): a processor runs
    /// older ones too, and what names none is taken after all others; without a variant, it comes first.
    fn variants(&self) -> Vec<String> {
        let below =
            |newest: u32, oldest: u32| (oldest..=newest).rev().map(|level| format!("v{level}"));
        let (newest, oldest) = match self.architecture.as_str() {
            "arm" => (8, 5),
            "arm64" => (8, 8),
            // What names none is the first.
            "amd64" => (1, 1),
            _ => (0, 1),
        };
        if self.variant.is_empty() {
            return std::iter::once(String::new())
                .chain(below(newest, oldest))
                .collect();
        }
        let level = self
            .variant
            .strip_prefix('v')
            .and_then(|level| level.parse().ok());
        let mut variants: Vec<String> = match level {
            Some(level) if (oldest..=99).contains(&level) && newest > 0 => {
                below(level, oldest).collect()
            }
            // Nobody knows what else it runs.
            _ => vec![self.variant.clone()],
        };
        variants.push(String::new());
        variants
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_read_in_gos_words() {
        let check = |text: &str, expected: Option<&str>| {
            let parsed = Platform::parse(text).ok().map(|p| p.to_string());
            assert_eq!(parsed.as_deref(), expected, "{text:?}");
        };
        check("linux/amd64", Some("linux/amd64"));
        check("arm64", Some("linux/arm64"));
        check("aarch64", Some("linux/arm64"));
        check("linux/arm/v7", Some("linux/arm/v7"));
        check("", None);
        check("linux/", None);
        check("a/b/c/d", None);
        check("linux/../x", None);
    }

    #[test]
    fn an_older_variant_fits_and_a_newer_does_not() {
        let check = |host: &str, offered: &str, expected: Option<usize>| {
            let platform = |text| Platform::parse(text).expect("a platform");
            assert_eq!(
                platform(host).rank(&platform(offered)),
                expected,
                "{offered} on {host}"
            );
        };
        check("linux/amd64", "linux/amd64", Some(0));
        check("linux/amd64", "linux/amd64/v1", Some(1));
        check("linux/amd64", "linux/amd64/v2", None);
        check("linux/amd64/v3", "linux/amd64/v3", Some(0));
        check("linux/amd64/v3", "linux/amd64/v2", Some(1));
        check("linux/amd64/v3", "linux/amd64", Some(3));
        check("linux/amd64/v3", "linux/amd64/v4", None);
        check("linux/arm/v7", "linux/arm/v7", Some(0));
        check("linux/arm/v7", "linux/arm/v6", Some(1));
        check("linux/arm/v7", "linux/arm", Some(3));
        check("linux/arm/v6", "linux/arm/v7", None);
        check("linux/arm", "linux/arm", Some(0));
        check("linux/arm", "linux/arm/v8", Some(1));
        check("linux/arm64", "linux/arm64/v8", Some(1));
        check("linux/arm64/v8", "linux/arm64", Some(1));
        check("linux/arm64/v9", "linux/arm64/v8", Some(1));
        check("linux/riscv64", "linux/riscv64", Some(0));
        check("linux/riscv64", "linux/riscv64/x", None);
        check("linux/riscv64/x", "linux/riscv64/x", Some(0));
        check("linux/riscv64/x", "linux/riscv64", Some(1));
        check("linux/amd64", "windows/amd64", None);
        check("linux/amd64", "linux/arm64", None);
    }
}
