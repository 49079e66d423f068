//! Which language is spoken, and how that is found out.

use std::str::FromStr;

use crate::environment::Environment;

/// A language.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lang {
    #[default]
    En,
    Ko,
}

impl Lang {
    /// What `LC_ALL`, `LC_MESSAGES` or `LANG` ask for, in POSIX's order; English for anything but Korean.
    pub fn of_environment(environment: &Environment) -> Self {
        ["LC_ALL", "LC_MESSAGES", "LANG"]
            .iter()
            .find_map(|name| environment.text(name))
            .filter(|locale| locale.starts_with("ko"))
            .map_or(Self::En, |_| Self::Ko)
    }

    /// As HTTP has it.
    pub const fn code(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Ko => "ko",
        }
    }
}

impl FromStr for Lang {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "en" => Ok(Self::En),
            "ko" => Ok(Self::Ko),
            _ => Err("en, ko"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_chooses_in_posix_order() {
        let lang = |variables: &[(&str, &str)]| Lang::of_environment(&Environment::of(variables));
        assert_eq!(lang(&[]), Lang::En);
        assert_eq!(lang(&[("LANG", "ko_KR.UTF-8")]), Lang::Ko);
        assert_eq!(lang(&[("LANG", "ko_KR.UTF-8"), ("LC_ALL", "C")]), Lang::En);
        assert_eq!(lang(&[("LANG", "de_DE.UTF-8"), ("LC_MESSAGES", "ko")]), Lang::Ko);
        assert_eq!(lang(&[("LC_ALL", ""), ("LANG", "ko")]), Lang::Ko);
    }
}
