use super::*;

const SIZE: usize = 64;
const TOPIC: &str = "main";
const ALL: [Format; 5] =
    [Format::Plain, Format::Envelope, Format::Nats, Format::Resp, Format::Mqtt];

fn addrs(count: u16) -> Vec<SocketAddr> {
    // Ports of four and of five digits, so that lines have two lengths.
    (0..count).map(|at| SocketAddr::from(([127, 0, 0, 1], 9999 + at))).collect()
}

fn lines(format: Format, count: u16) -> Lines {
    Lines::new(format, TOPIC, &addrs(count), SIZE)
}

/// What a relay of this format delivers for `(publisher, sequence, stamp)`.
fn delivered(format: Format, of: &[(usize, u64, u64)]) -> Vec<u8> {
    let mut out = Vec::new();
    for &(publisher, sequence, stamp) in of {
        let mut line = Vec::new();
        Stencil::new(Format::Plain, TOPIC, publisher, SIZE).write(&mut line, sequence, &hex(stamp));
        assert_eq!(line.len(), SIZE + 1);
        let around = format.heard(TOPIC, SIZE, addrs(9)[publisher]);
        out.extend_from_slice(&[&around.head[..], &line[..SIZE], &around.tail].concat());
    }
    out
}

fn run(count: u64) -> Vec<(usize, u64, u64)> {
    (0..count).map(|sequence| (0, sequence, 1000 + sequence / 4)).collect()
}

/// Walks a whole stream cut into pieces, keeping what is left as a receiver does.
fn walk_pieces(
    lines: &mut Lines,
    bytes: &[u8],
    piece: usize,
    next: &mut [u64],
    depth: Depth,
) -> Result<u64, LineFault> {
    let (mut kept, mut total) = (Vec::new(), 0);
    for part in bytes.chunks(piece) {
        kept.extend_from_slice(part);
        let walked = lines.walk(&kept, next, depth, |_, _| {})?;
        kept.drain(..walked.bytes);
        total += walked.lines;
    }
    assert!(kept.is_empty(), "{} bytes left", kept.len());
    Ok(total)
}

#[test]
fn whatever_the_pieces_all_lines_count() {
    let of = [(0, 0, 5), (1, 0, 6), (1, 1, 6), (0, 1, 7), (2, 0, 7), (0, 2, 7)];
    for format in ALL {
        for depth in [Depth::Counted, Depth::Whole] {
            for piece in 1..300 {
                let mut next = [0; 1];
                let bytes = delivered(format, &run(20));
                let total =
                    walk_pieces(&mut lines(format, 1), &bytes, piece, &mut next, depth).unwrap();
                assert_eq!((total, next), (20, [20]));
                let mut next = [0; 3];
                let bytes = delivered(format, &of);
                let total =
                    walk_pieces(&mut lines(format, 3), &bytes, piece, &mut next, depth).unwrap();
                assert_eq!((total, next), (6, [3, 2, 1]));
            }
        }
    }
}

#[test]
fn runs_of_lines_sent_together_are_seen_once() {
    let bytes = delivered(Format::Envelope, &run(10));
    let mut seen = Vec::new();
    let sent = |stamp, count| seen.push((stamp, count));
    lines(Format::Envelope, 1).walk(&bytes, &mut [0], Depth::Whole, sent).unwrap();
    assert_eq!(seen, [(1000, 4), (1001, 4), (1002, 2)]);
}

#[test]
fn lost_repeated_and_own_lines_are_faults() {
    for depth in [Depth::Counted, Depth::Whole] {
        let walk = |of: &[(usize, u64, u64)], next: u64| {
            let bytes = delivered(Format::Plain, of);
            lines(Format::Plain, 1).walk(&bytes, &mut [next], depth, |_, _| {}).unwrap_err()
        };
        let order = |expected, found| LineFault::Order { publisher: 0, expected, found };
        assert_eq!(walk(&[(0, 0, 1), (0, 2, 1)], 0), order(1, 2));
        assert_eq!(walk(&[(0, 0, 1), (0, 0, 1)], 0), order(1, 0));
        assert_eq!(walk(&[(0, 7, 1)], 0), order(0, 7));
        assert_eq!(walk(&[(0, 0, 1)], OWN), LineFault::Own { publisher: 0 });
    }
}

#[test]
fn warnings_and_damage_are_faults() {
    let warning = b"Warning: You were disconnected because you read too slowly.\n";
    for format in ALL {
        for depth in [Depth::Counted, Depth::Whole] {
            let good = delivered(format, &run(3));
            let bytes = [&good[..], warning, &good[..]].concat();
            let fault = lines(format, 1).walk(&bytes, &mut [0], depth, |_, _| {}).unwrap_err();
            let LineFault::Foreign { text } = fault else { panic!("{fault}") };
            assert!(text.starts_with("Warning: You"), "{text}");
            // A flipped byte in the last line, wherever it is, but for the time of sending.
            let stamp = lines(format, 1).head_len + STAMP.start..;
            let line_len = good.len() / 3;
            for at in (0..line_len).filter(|at| !(stamp.start..stamp.start + 16).contains(at)) {
                let mut bytes = good.clone();
                bytes[2 * line_len + at] ^= 1;
                let walked = lines(format, 1).walk(&bytes, &mut [0], depth, |_, _| {});
                assert!(walked.is_err(), "byte {at} of {format:?} at {depth:?}: {walked:?}");
            }
        }
    }
}

#[test]
fn sync_lines_give_rounds_and_are_no_messages() {
    let mut line = Vec::new();
    Stencil::new(Format::Plain, TOPIC, 0, SIZE).write_sync(&mut line, 3);
    let mut lines = lines(Format::Plain, 1);
    let mut rounds = [0];
    let walked = lines.walk_sync(&line, &mut rounds).unwrap();
    assert_eq!((walked, rounds), (Walked { bytes: SIZE + 1, lines: 1, questions: 0 }, [3]));
    assert!(lines.walk_sync(&line, &mut rounds).is_err(), "the same round twice");
    assert!(lines.walk(&line, &mut [3], Depth::Counted, |_, _| {}).is_err());
    let message = delivered(Format::Plain, &[(0, 9, 1)]);
    assert!(lines.walk_sync(&message, &mut rounds).is_err());
}

#[test]
fn hexadecimal_goes_there_and_back() {
    for value in [0, 1, 0xf, 0x1234_5678_9abc_def0, u64::MAX] {
        assert_eq!(unhex(&hex(value)), Some(value));
    }
    assert_eq!((unhex(b"00g0"), unhex(b"00A0")), (None, None));
}

#[test]
fn questions_between_lines_are_seen_wherever_they_are_cut() {
    let lines_of = |from, to| delivered(Format::Nats, &run(to)[from..]);
    let bytes =
        [b"PING\r\n", &lines_of(0, 5)[..], b"PING\r\nPING\r\n", &lines_of(5, 9), b"PING\r\n"]
            .concat();
    for depth in [Depth::Counted, Depth::Whole] {
        for piece in 1..bytes.len() + 1 {
            let (mut lines, mut next) = (lines(Format::Nats, 1), [0]);
            let (mut kept, mut questions) = (Vec::new(), 0);
            for part in bytes.chunks(piece) {
                kept.extend_from_slice(part);
                let walked = lines.walk(&kept, &mut next, depth, |_, _| {}).unwrap();
                kept.drain(..walked.bytes);
                questions += walked.questions;
            }
            assert_eq!((next, questions, kept.len()), ([9], 4, 0), "pieces of {piece}");
        }
    }
}
