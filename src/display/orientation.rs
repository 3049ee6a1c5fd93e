//! How a panel hangs: rotated, mirrored, or as its maker meant it.

/// How far the panel is turned clockwise from its native orientation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rotation {
    /// As its controller counts rows and columns.
    #[default]
    Deg0,
    /// A quarter.
    Deg90,
    /// Upside down.
    Deg180,
    /// Three quarters.
    Deg270,
}

/// Whether the picture is shown as in a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mirror {
    /// As it is.
    #[default]
    No,
    /// Left and right are swapped, as the viewer sees them.
    LeftRight,
}

spelled!(Mirror, "mirror", No = "no", LeftRight = "left-right");

/// From the viewer's picture to the panel's native rows.
///
/// The picture is mirrored first, then turned by the rotation, clockwise, into native rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Orientation {
    /// Of the picture on the native panel.
    pub rotation: Rotation,
    /// Of the picture, before it is turned.
    pub mirror: Mirror,
}

impl Rotation {
    /// In degrees: 0, 90, 180 or 270.
    pub fn degrees(self) -> u16 {
        match self {
            Self::Deg0 => 0,
            Self::Deg90 => 90,
            Self::Deg180 => 180,
            Self::Deg270 => 270,
        }
    }
}

impl TryFrom<u16> for Rotation {
    type Error = crate::error::Error;

    fn try_from(degrees: u16) -> crate::error::Result<Self> {
        match degrees {
            0 => Ok(Self::Deg0),
            90 => Ok(Self::Deg90),
            180 => Ok(Self::Deg180),
            270 => Ok(Self::Deg270),
            _ => Err(crate::error::Error::unexpected(
                "rotation-deg",
                "0, 90, 180 or 270",
                degrees,
            )),
        }
    }
}

impl From<Rotation> for u16 {
    fn from(rotation: Rotation) -> Self {
        rotation.degrees()
    }
}

impl serde::Serialize for Rotation {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.degrees())
    }
}

impl<'de> serde::Deserialize<'de> for Rotation {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let degrees = u16::deserialize(deserializer)?;
        Self::try_from(degrees).map_err(serde::de::Error::custom)
    }
}

impl Orientation {
    /// The size that the viewer sees of a panel whose native size is `size_px`, and the other way
    /// round: the two differ by a swap of the sides, or not at all.
    pub fn seen(self, [width_px, height_px]: [usize; 2]) -> [usize; 2] {
        match self.rotation {
            Rotation::Deg0 | Rotation::Deg180 => [width_px, height_px],
            Rotation::Deg90 | Rotation::Deg270 => [height_px, width_px],
        }
    }

    /// The viewer's column and row of the native pixel (`x`, `y`) of a panel whose native size is
    /// `native_px`.
    pub fn source(self, [x, y]: [usize; 2], native_px: [usize; 2]) -> [usize; 2] {
        let [width, height] = native_px;
        let [column, row] = match self.rotation {
            Rotation::Deg0 => [x, y],
            Rotation::Deg90 => [y, width - 1 - x],
            Rotation::Deg180 => [width - 1 - x, height - 1 - y],
            Rotation::Deg270 => [height - 1 - y, x],
        };
        match self.mirror {
            Mirror::No => [column, row],
            Mirror::LeftRight => [self.seen(native_px)[0] - 1 - column, row],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The native rows of a picture "ab/cd/ef", 2 wide and 3 high.
    fn native(rotation: Rotation, mirror: Mirror) -> String {
        let picture = ["ab", "cd", "ef"];
        let orientation = Orientation { rotation, mirror };
        let [width, height] = orientation.seen([2, 3]);
        let rows = (0..height).map(|y| {
            let row = (0..width).map(|x| {
                let [column, row] = orientation.source([x, y], [width, height]);
                char::from(picture[row].as_bytes()[column])
            });
            row.collect::<String>()
        });
        rows.collect::<Vec<_>>().join("/")
    }

    #[test]
    fn a_picture_is_turned_clockwise_into_native_rows() {
        assert_eq!(native(Rotation::Deg0, Mirror::No), "ab/cd/ef");
        assert_eq!(native(Rotation::Deg90, Mirror::No), "eca/fdb");
        assert_eq!(native(Rotation::Deg180, Mirror::No), "fe/dc/ba");
        assert_eq!(native(Rotation::Deg270, Mirror::No), "bdf/ace");
    }

    #[test]
    fn a_mirror_swaps_the_viewers_left_and_right() {
        assert_eq!(native(Rotation::Deg0, Mirror::LeftRight), "ba/dc/fe");
        assert_eq!(native(Rotation::Deg90, Mirror::LeftRight), "fdb/eca");
    }

    #[test]
    fn other_angles_are_refused_in_a_sentence() {
        let error = Rotation::try_from(45).unwrap_err().to_string();
        assert_eq!(error, "rotation-deg: expected 0, 90, 180 or 270, found 45");
    }
}
