//! One spelling of a value for the command line, the manifest and the recipe.

/// Serde through `Display` and `FromStr`: one spelling for command line, manifest and recipe.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(
                &self,
                serializer: S,
            ) -> std::result::Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(
                deserializer: D,
            ) -> std::result::Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// The spelling of an enum without data: `NAMES`, `Display`, `FromStr` and serde.
macro_rules! spelled {
    ($type:ident, $what:literal, $($variant:ident = $text:literal),+ $(,)?) => {
        impl $type {
            /// Every spelling, in the order of the variants.
            pub const NAMES: &'static [&'static str] = &[$($text),+];
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.pad(match self {
                    $(Self::$variant => $text),+
                })
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::error::Error;

            fn from_str(text: &str) -> $crate::error::Result<Self> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err($crate::error::Error::unexpected(
                        $what,
                        Self::NAMES.join(", "),
                        format!("{text:?}"),
                    )),
                }
            }
        }

        serde_as_text!($type);
    };
}
