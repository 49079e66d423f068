//! The bytes of every message, pinned. A change of format shows up in review as changed lines of `golden.txt`.
//!
//! `SCENEMESH_GOLDEN=write cargo test -p scenemesh-protocol --test it golden` writes the file anew. Do that for a new
//! message; a message that was ever released keeps its bytes, and its successor gets a number of its own.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use data_encoding::HEXLOWER;
use scenemesh_protocol::codec::{self, Message};
use scenemesh_protocol::envelope::{Desk, Envelope, HEADER_LEN, Recipient, ResultKeys, Standing, Terms};
use scenemesh_protocol::ids::{MsgId, PoolId};
use scenemesh_protocol::keys::KemSecret;

use crate::decode_any::{decode_any, frame, kinds};
use crate::samples::{Sample, key, result_keys, samples};

/// Thirty-two bytes of body on each line, after one line for the frame's header.
fn print(sample: &Sample) -> String {
    let (header, body) = sample.frame.split_at(codec::HEADER_LEN);
    let mut text = format!("{}\n  {}\n", sample.name, HEXLOWER.encode(header));
    for line in body.chunks(32) {
        writeln!(text, "    {}", HEXLOWER.encode(line)).unwrap();
    }
    text
}

#[test]
fn every_message_has_the_bytes_it_always_had() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden.txt");
    let printed: Vec<String> = samples().iter().map(print).collect();
    let printed = printed.join("\n");
    if std::env::var_os("SCENEMESH_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&path, &printed).unwrap();
    }
    let pinned = std::fs::read_to_string(&path).unwrap().replace('\r', "");
    let mut now = printed.lines();
    for (number, line) in pinned.lines().enumerate() {
        assert_eq!(now.next(), Some(line), "golden.txt line {}", number + 1);
    }
    assert_eq!(now.next(), None, "golden.txt lacks a message");
}

#[test]
fn every_message_decodes_to_what_was_encoded() {
    for sample in samples() {
        assert_eq!(decode_any(sample.kind(), sample.body()), Ok(sample.frame.clone()), "{}", sample.name);
        assert_eq!(frame(sample.kind(), sample.body()), sample.frame, "{}", sample.name);
    }
}

#[test]
fn every_type_has_one_number_and_a_sample() {
    let sampled: BTreeSet<u16> = samples().iter().map(Sample::kind).collect();
    let mut numbers = BTreeSet::new();
    for (name, kind, limit) in kinds() {
        assert!(numbers.insert(kind), "{name} has a number that is taken: {kind:#06x}");
        assert!(sampled.contains(&kind), "{name} has no sample");
        assert!(limit <= 16 << 20, "{name}");
    }
    assert_eq!(numbers, sampled);
}

#[test]
fn the_table_in_the_docs_has_every_type() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    let docs = std::fs::read_to_string(path).unwrap();
    for (name, kind, limit) in kinds() {
        let limit = match limit {
            mib if mib % (1 << 20) == 0 => format!("{} MiB", mib >> 20),
            kib if kib % (1 << 10) == 0 => format!("{} KiB", kib >> 10),
            bytes => bytes.to_string(),
        };
        let row = format!("| `{kind:#06x}` | {name} | {limit} |");
        assert!(docs.contains(&row), "docs/protocol.md has no row that begins {row}");
    }
}

#[test]
fn names_of_samples_are_used_once() {
    let all = samples();
    let names: BTreeSet<_> = all.iter().map(|sample| sample.name).collect();
    assert_eq!(names.len(), all.len());
}

/// An envelope of version 1, sealed once: HPKE draws its ephemeral key at random, so its bytes cannot be made again,
/// but they must open for ever.
const ENVELOPE: &str = include_str!("envelope.txt");

fn sealed_once() -> Envelope {
    let hex: String = ENVELOPE.split_whitespace().collect();
    Envelope::from_bytes(HEXLOWER.decode(hex.as_bytes()).unwrap())
}

fn terms() -> Terms {
    Terms {
        pool: PoolId::from_bytes([0x10; 16]),
        epoch: 4,
        task: result_keys().task,
        attempt: result_keys().attempt,
        msg_id: MsgId::from_bytes([0x14; 16]),
        created_ms: 1_800_000_000_000,
        expires_ms: 1_800_000_600_000,
    }
}

#[test]
fn an_envelope_of_this_version_opens() {
    let kem = KemSecret::from_bytes(&[8; 32]);
    let to = Recipient { node: key(5).public().node(), kem: kem.public() };
    if std::env::var_os("SCENEMESH_GOLDEN").is_some_and(|value| value == "seal") {
        let envelope = Envelope::seal(&result_keys(), &key(3), &to, &terms()).unwrap();
        let lines: Vec<String> = envelope.as_bytes().chunks(32).map(|line| HEXLOWER.encode(line)).collect();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/envelope.txt");
        std::fs::write(path, lines.join("\n") + "\n").unwrap();
        return;
    }
    let desk = Desk {
        pool: terms().pool,
        me: to.node,
        epoch: 4,
        standing: &|_| Standing::Admitted,
        seen: &|_, _| false,
        purged_ms: 0,
    };
    let envelope = sealed_once();
    let judged = envelope.read::<ResultKeys>().unwrap().judge(terms().created_ms, &desk).unwrap();
    // The header's fields in their order, as docs/protocol.md has them.
    let header = [
        &b"SMEV\x01\x01\x01"[..],
        &ResultKeys::TYPE.to_le_bytes(),
        &[0x10; 16],
        &4u64.to_le_bytes(),
        key(3).public().as_bytes(),
        key(5).public().as_bytes(),
        &[0x14; 16],
        &[0x13; 16],
        &2u32.to_le_bytes(),
        &1_800_000_000_000u64.to_le_bytes(),
        &1_800_000_600_000u64.to_le_bytes(),
        &judged.header().enc,
        &u32::try_from(envelope.as_bytes().len() - HEADER_LEN).unwrap().to_le_bytes(),
    ]
    .concat();
    assert_eq!(envelope.as_bytes()[..HEADER_LEN], header);
    assert_eq!(judged.open(&kem).unwrap().payload, result_keys());
}
