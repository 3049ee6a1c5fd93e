//! Devices by their tables, and a file in the place of a device's memory.

use std::io::Write;
use std::mem::{offset_of, size_of};

use super::geometry::BitField;
use super::*;

fn field(offset: u32, length: u32) -> BitField {
    BitField {
        offset,
        length,
        msb_right: 0,
    }
}

/// A device of `size_px` with `pitch` bytes a row, enough memory for it, and these colours.
fn device(
    size_px: [u32; 2],
    bits: u32,
    pitch: u32,
    rgb: [BitField; 3],
) -> (FixedInfo, VariableInfo) {
    let fixed = FixedInfo {
        smem_len: pitch * size_px[1],
        visual: 2,
        line_length: pitch,
        ..FixedInfo::default()
    };
    let variable = VariableInfo {
        xres: size_px[0],
        yres: size_px[1],
        xres_virtual: size_px[0],
        yres_virtual: size_px[1],
        bits_per_pixel: bits,
        red: rgb[0],
        green: rgb[1],
        blue: rgb[2],
        ..VariableInfo::default()
    };
    (fixed, variable)
}

fn rgb888() -> [BitField; 3] {
    [field(16, 8), field(8, 8), field(0, 8)]
}

fn rgb565() -> [BitField; 3] {
    [field(11, 5), field(5, 6), field(0, 5)]
}

fn geometry((fixed, variable): (FixedInfo, VariableInfo)) -> Result<Geometry> {
    Geometry::new("/dev/fb0", &fixed, &variable)
}

#[test]
fn the_kernels_structs_have_the_kernels_layout() {
    // Measured by a C program with linux/fb.h on x86_64; aarch64 is the same, both being LP64.
    assert_eq!(size_of::<VariableInfo>(), 160);
    assert_eq!(offset_of!(VariableInfo, red), 32);
    assert_eq!(offset_of!(VariableInfo, activate), 84);
    assert_eq!(size_of::<FixedInfo>(), 80);
    assert_eq!(offset_of!(FixedInfo, smem_len), 24);
    assert_eq!(offset_of!(FixedInfo, visual), 36);
    assert_eq!(offset_of!(FixedInfo, line_length), 48);
    assert_eq!(offset_of!(FixedInfo, mmio_start), 56);
}

#[test]
fn usual_devices_are_understood() {
    // A small SPI display through fbtft; a full HD one whose rows are padded; 24 bits.
    let spi = geometry(device([240, 320], 16, 480, rgb565())).unwrap();
    assert_eq!((spi.layout, spi.row_start(3)), (PixelLayout::RGB565, 1440));
    let padded = geometry(device([1366, 768], 32, 5504, rgb888())).unwrap();
    assert_eq!(
        (padded.layout, padded.row_start(2)),
        (PixelLayout::XRGB8888, 11008)
    );
    let packed = geometry(device([800, 480], 24, 2400, rgb888())).unwrap();
    assert_eq!(packed.layout.bytes, 3);
}

#[test]
fn the_visible_part_begins_at_the_offsets() {
    let (mut fixed, mut variable) = device([4, 2], 32, 40, rgb888());
    (variable.xoffset, variable.yoffset) = (3, 2);
    fixed.smem_len = 160;
    let geometry = geometry((fixed, variable)).unwrap();
    assert_eq!(geometry.row_start(1), 3 * 40 + 3 * 4);
}

#[test]
fn what_cannot_be_drawn_is_refused_in_a_sentence() {
    let sentence = |device| geometry(device).unwrap_err().to_string();
    let pixels = "/dev/fb0: expected pixels of red, green and blue in 16, 24 or 32 bits, found ";
    let (mut palette, variable) = device([640, 480], 8, 640, rgb888());
    palette.visual = 3;
    assert_eq!(
        sentence((palette, variable)),
        format!("{pixels}8 bits per pixel, visual 3, type 0")
    );
    let absurd = device([640, 480], 16, 1280, rgb888());
    assert_eq!(
        sentence(absurd),
        format!("{pixels}16 bits per pixel, visual 2, type 0")
    );
    let (mut short, variable) = device([640, 480], 32, 2560, rgb888());
    short.smem_len -= 1;
    assert_eq!(
        sentence((short, variable)),
        "/dev/fb0: expected rows within 1228799 bytes of memory, \
         found 640x480 from (0, 0), 2560 bytes a row"
    );
    let narrow = device([640, 480], 32, 2556, rgb888());
    assert!(sentence(narrow).ends_with("found 640x480 from (0, 0), 2556 bytes a row"));
    let (fixed, mut nothing) = device([640, 480], 32, 2560, rgb888());
    nothing.xres = 0;
    assert!(sentence((fixed, nothing)).contains("found 0x480"));
}

/// A frame whose pixels are all different.
fn frame(width_px: usize, height_px: usize) -> Frame {
    let mut frame = Frame::new(width_px, height_px);
    for (at, pixel) in frame.rgb_mut().chunks_exact_mut(3).enumerate() {
        pixel.copy_from_slice(&[at as u8, 100, 255 - at as u8]);
    }
    frame
}

#[test]
fn only_the_picture_is_written_and_only_where_it_changed() {
    let (mut fixed, mut variable) = device([3, 2], 32, 20, rgb888());
    (variable.xoffset, variable.yoffset) = (1, 1);
    fixed.smem_len = 80;
    let geometry = geometry((fixed, variable)).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[7; 80]).unwrap();
    let facts = Facts::default();
    let mut device = Device::new(file.try_clone().unwrap(), geometry, &facts);
    let frame = frame(3, 2);
    device.show(&frame, Damage::Changed, &facts).unwrap();
    let memory = |file: &File| {
        let mut memory = vec![0; 80];
        file.read_exact_at(&mut memory, 0).unwrap();
        memory
    };
    let mut expected = vec![7; 80];
    for y in 0..2 {
        for x in 0..3 {
            let [r, g, b] = frame.pixel(x, y);
            expected[20 * (y + 1) + 4 * (x + 1)..][..4].copy_from_slice(&[b, g, r, 0]);
        }
    }
    assert_eq!(memory(&file), expected);

    // What somebody else draws into an unchanged row stays there until everything is asked for.
    file.write_all_at(&[9], 24).unwrap();
    let mut changed = frame.clone();
    changed.rgb_mut()[9] = 250;
    device.show(&changed, Damage::Changed, &facts).unwrap();
    expected[24] = 9;
    expected[46] = 250;
    assert_eq!(memory(&file), expected);
    device.show(&changed, Damage::All, &facts).unwrap();
    expected[24] = frame.pixel(0, 0)[2];
    assert_eq!(memory(&file), expected);
}

#[test]
fn rows_are_written_in_runs_of_at_least_two() {
    let joined = |rows: &[usize], height| runs(rows.iter().copied(), height, 2, 4);
    assert_eq!(joined(&[], 9), []);
    assert_eq!(joined(&[0], 9), [(0, 2)]);
    assert_eq!(joined(&[8], 9), [(7, 9)]);
    assert_eq!(joined(&[3, 4, 5], 9), [(3, 6)]);
    assert_eq!(
        joined(&[0, 1, 2, 3, 4, 5, 6, 7, 8], 9),
        [(0, 4), (4, 8), (7, 9)]
    );
    assert_eq!(joined(&[1, 3, 4, 7], 9), [(1, 5), (7, 9)]);
    assert_eq!(joined(&[0], 1), [(0, 1)]);
    let single = runs([2, 3, 7].into_iter(), 9, 1, 1);
    assert_eq!(single, [(2, 3), (3, 4), (7, 8)]);
}

#[test]
fn without_gaps_every_row_lands_in_its_place() {
    let facts = Facts::default();
    let geometry = geometry(device([3, 130], 16, 6, rgb565())).unwrap();
    let file = tempfile::tempfile().unwrap();
    let mut device = Device::new(file.try_clone().unwrap(), geometry, &facts);
    let frame = frame(3, 130);
    device.show(&frame, Damage::Changed, &facts).unwrap();
    let packer = Packer::new(PixelLayout::RGB565);
    let mut row = [0; 6];
    for y in 0..130 {
        packer.write_row(&frame, Orientation::default(), [3, 130], y, &mut row);
        let mut found = [0; 6];
        file.read_exact_at(&mut found, 6 * y as u64).unwrap();
        assert_eq!(found, row, "row {y}");
    }
}

#[test]
fn red_and_blue_are_swapped_on_request() {
    let facts: Facts = toml::from_str("color-order = \"swapped\"").unwrap();
    let geometry = geometry(device([1, 1], 32, 4, rgb888())).unwrap();
    let file = tempfile::tempfile().unwrap();
    let mut device = Device::new(file.try_clone().unwrap(), geometry, &facts);
    let mut frame = Frame::new(1, 1);
    frame.rgb_mut().copy_from_slice(&[1, 2, 3]);
    device.show(&frame, Damage::Changed, &facts).unwrap();
    let mut pixel = [0; 4];
    file.read_exact_at(&mut pixel, 0).unwrap();
    assert_eq!(pixel, [1, 2, 3, 0]);
}

#[test]
fn a_device_that_takes_no_more_bytes_is_an_error() {
    let facts = Facts {
        device: "/dev/full".into(),
        ..Facts::default()
    };
    let geometry = geometry(device([2, 2], 16, 4, rgb565())).unwrap();
    let file = OpenOptions::new().write(true).open(&facts.device).unwrap();
    let mut device = Device::new(file, geometry, &facts);
    let error = device
        .show(&frame(2, 2), Damage::Changed, &facts)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("/dev/full: cannot write: No space left")
    );
}

#[test]
fn what_is_no_device_is_refused_in_a_sentence() {
    let open = |device: &str| {
        let facts = Facts {
            device: device.into(),
            ..Facts::default()
        };
        Fbdev::open(facts).err().unwrap().to_string()
    };
    assert_eq!(
        open("/dev/fb99"),
        "/dev/fb99: expected a frame buffer device (ls /dev/fb* shows which there are), \
         found no such device"
    );
    assert!(open("/dev/null").starts_with("/dev/null: cannot ask for the size of: "));
}
