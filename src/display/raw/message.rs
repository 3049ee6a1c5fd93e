//! A frame as messages: our own header, or the Distributed Display Protocol.

use super::Protocol;

/// The most bytes of a datagram that crosses an Ethernet whole: 1500 less the IP and UDP headers.
pub const DATAGRAM_BYTES: usize = 1472;

/// The length of our own header; `docs/raw-frames.md` describes it.
const HEADER_BYTES: usize = 24;

/// The length of DDP's header without a time code.
const DDP_HEADER_BYTES: usize = 10;

/// The most bytes of pixels in a message of DDP, by its specification: 480 pixels.
const DDP_DATA_BYTES: usize = 1440;

/// The messages that bring `rgb`, `[width, height]` pixels large, in their order.
///
/// No message is longer than `limit_bytes`, and none divides a pixel. `number` counts the frames,
/// repeated ones as well.
pub fn messages(
    protocol: Protocol,
    number: u32,
    size_px: [usize; 2],
    rgb: &[u8],
    limit_bytes: usize,
) -> Vec<Vec<u8>> {
    let data_bytes = match protocol {
        Protocol::Driftglass => limit_bytes - HEADER_BYTES,
        Protocol::Ddp => DDP_DATA_BYTES.min(limit_bytes - DDP_HEADER_BYTES),
    };
    let data_bytes = data_bytes / 3 * 3;
    let parts = rgb.chunks(data_bytes).enumerate();
    let message = parts.map(|(index, data)| {
        let offset = index * data_bytes;
        let last = offset + data.len() == rgb.len();
        let mut message = match protocol {
            Protocol::Driftglass => header(number, size_px, offset, data.len(), last),
            Protocol::Ddp => ddp_header(number, offset, data.len(), last),
        };
        message.extend(data);
        message
    });
    message.collect()
}

fn header(number: u32, size_px: [usize; 2], offset: usize, length: usize, last: bool) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES + length);
    // Version 1, format 1 (RGB, 8 bits each), the flags and the length of this header.
    header.extend(b"DGFR\x01\x01");
    header.extend([u8::from(last), HEADER_BYTES as u8]);
    for side in size_px {
        header.extend((side as u16).to_be_bytes());
    }
    for value in [number, offset as u32, length as u32] {
        header.extend(value.to_be_bytes());
    }
    header
}

fn ddp_header(number: u32, offset: usize, length: usize, last: bool) -> Vec<u8> {
    let mut header = Vec::with_capacity(DDP_HEADER_BYTES + length);
    // Version 1; the push flag says that the frame is complete.
    header.push(0x40 | u8::from(last));
    // 1 to 15, because 0 means that frames are not numbered. All messages of a frame share it.
    header.push((number % 15 + 1) as u8);
    // RGB with 8 bits each, for the default output.
    header.extend([0x0b, 1]);
    header.extend((offset as u32).to_be_bytes());
    header.extend((length as u16).to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_header_has_its_documented_bytes() {
        let rgb = [9, 8, 7, 6, 5, 4];
        let sent = messages(Protocol::Driftglass, 0x0102_0304, [2, 1], &rgb, 1472);
        let expected: &[u8] = b"DGFR\x01\x01\x01\x18\x00\x02\x00\x01\x01\x02\x03\x04\
            \x00\x00\x00\x00\x00\x00\x00\x06\x09\x08\x07\x06\x05\x04";
        assert_eq!(sent, [expected]);
    }

    #[test]
    fn ddps_header_has_its_documented_bytes() {
        let rgb: Vec<u8> = (0..3 * 600).map(|at| at as u8).collect();
        let sent = messages(Protocol::Ddp, 16, [30, 20], &rgb, DATAGRAM_BYTES);
        assert_eq!(sent.len(), 2);
        assert_eq!(sent[0][..10], [0x40, 2, 0x0b, 1, 0, 0, 0, 0, 0x05, 0xa0]);
        assert_eq!(
            sent[1][..10],
            [0x41, 2, 0x0b, 1, 0, 0, 0x05, 0xa0, 0x01, 0x68]
        );
        assert_eq!([&sent[0][10..], &sent[1][10..]].concat(), rgb);
        let numbers =
            [13, 14, 15].map(|number| messages(Protocol::Ddp, number, [1, 1], &[0; 3], 99)[0][1]);
        assert_eq!(numbers, [14, 15, 1]);
    }

    #[test]
    fn every_part_fits_and_divides_no_pixel() {
        for pixels in [1, 481, 482, 483, 4096, 65536] {
            let rgb: Vec<u8> = (0..3 * pixels).map(|at| (at % 251) as u8).collect();
            for protocol in [Protocol::Driftglass, Protocol::Ddp] {
                let sent = messages(protocol, 0, [pixels, 1], &rgb, DATAGRAM_BYTES);
                let start = if protocol == Protocol::Ddp { 10 } else { 24 };
                assert!(sent.iter().all(|message| message.len() <= DATAGRAM_BYTES));
                assert!(sent.iter().all(|message| (message.len() - start) % 3 == 0));
                let data: Vec<&[u8]> = sent.iter().map(|message| &message[start..]).collect();
                assert_eq!(data.concat(), rgb);
            }
        }
    }
}
