use scenemesh_protocol::advert::{Availability, Hygiene};

use super::super::{Pack, testing};
use super::*;

const POOL: PoolId = PoolId::from_bytes([7; 16]);
const WALL: u64 = 1_800_000_000_000;
const FIRST: BootId = BootId::from_bytes([1; 16]);
const SECOND: BootId = BootId::from_bytes([2; 16]);
const HEARSAY: Heard = Heard::FromOthers { linked: None };

fn advert(key: &SecretKey, boot: BootId, seq: u64, created_ms: u64) -> Advert {
    Advert { pool: POOL, boot, seq, created_ms, ..testing::advert(key.public().node()) }
}

fn signed(key: &SecretKey, boot: BootId, seq: u64, created_ms: u64) -> Signed<Advert> {
    Signed::new(&advert(key, boot, seq, created_ms), key)
}

fn takes(book: &mut AdvertBook, now: Instant, signed: &Signed<Advert>, heard: Heard) -> bool {
    book.absorb(now, WALL, &POOL, signed, |_| Some(heard)).is_some()
}

#[test]
fn the_newest_of_a_boot_wins() {
    let (key, now) = (SecretKey::generate(), Instant::now());
    let mut book = AdvertBook::default();
    assert!(takes(&mut book, now, &signed(&key, FIRST, 2, WALL), HEARSAY));
    assert!(!takes(&mut book, now, &signed(&key, FIRST, 2, WALL), HEARSAY));
    assert!(!takes(&mut book, now, &signed(&key, FIRST, 1, WALL), Heard::Directly));
    assert!(takes(&mut book, now, &signed(&key, FIRST, 3, WALL), HEARSAY));
}

#[test]
fn direct_contact_beats_hearsay() {
    let (key, now) = (SecretKey::generate(), Instant::now());
    let mut book = AdvertBook::default();
    let node = key.public().node();
    assert!(takes(&mut book, now, &signed(&key, FIRST, 9, WALL + 1000), HEARSAY));
    // It restarted, and its clock was set back.
    book.restarted(&node, SECOND);
    assert_eq!(book.get(&node), None);
    assert!(takes(&mut book, now, &signed(&key, SECOND, 1, WALL - 60_000), Heard::Directly));
    let linked = Heard::FromOthers { linked: Some(SECOND) };
    assert!(!takes(&mut book, now, &signed(&key, FIRST, 10, WALL + 2000), linked));
    assert!(takes(&mut book, now, &signed(&key, SECOND, 2, WALL - 50_000), linked));
}

#[test]
fn without_contact_the_younger_boot_wins() {
    let (key, now) = (SecretKey::generate(), Instant::now());
    let mut book = AdvertBook::default();
    assert!(takes(&mut book, now, &signed(&key, SECOND, 1, WALL), HEARSAY));
    assert!(!takes(&mut book, now, &signed(&key, FIRST, 99, WALL - 1), HEARSAY));
    assert!(takes(&mut book, now, &signed(&key, FIRST, 1, WALL + 1), HEARSAY));
}

#[test]
fn what_ran_out_does_not_come_back() {
    let (key, now) = (SecretKey::generate(), Instant::now());
    let mut book = AdvertBook::default();
    let old = signed(&key, FIRST, 1, WALL);
    assert!(takes(&mut book, now, &old, HEARSAY));
    let later = now + Duration::from_secs(TTL_S.into());
    assert_eq!(book.expire(later), [key.public().node()]);
    assert!(!takes(&mut book, later, &old, HEARSAY));
    assert_eq!(book.lacking(&[], 0), []);
    assert_eq!(book.have(), [(key.public().node(), FIRST, 1)]);
    // Nor is one believed that somebody kept for an hour.
    let mut other = AdvertBook::default();
    assert!(!takes(&mut other, now, &signed(&key, FIRST, 2, WALL - 3_600_000), HEARSAY));
}

#[test]
fn forged_foreign_and_future_adverts_are_passed_over() {
    let (key, other, now) = (SecretKey::generate(), SecretKey::generate(), Instant::now());
    let mut book = AdvertBook::default();
    // Signed by one, about another.
    let about_other = Signed::new(&advert(&other, FIRST, 1, WALL), &key);
    assert!(!takes(&mut book, now, &about_other, Heard::Directly));
    let elsewhere = Advert { pool: PoolId::from_bytes([8; 16]), ..advert(&key, FIRST, 1, WALL) };
    assert!(!takes(&mut book, now, &Signed::new(&elsewhere, &key), Heard::Directly));
    assert!(!takes(&mut book, now, &signed(&key, FIRST, 1, WALL + SKEW_MS + 1), Heard::Directly));
    // Not a member.
    let stranger = signed(&key, FIRST, 1, WALL);
    assert!(book.absorb(now, WALL, &POOL, &stranger, |_| None).is_none());
    assert!(book.have().is_empty());
}

#[test]
fn a_sync_brings_what_is_lacking_and_no_more_than_fits() {
    let now = Instant::now();
    let mut book = AdvertBook::default();
    let keys: Vec<_> = (0..BATCH * 2).map(|_| SecretKey::generate()).collect();
    for key in &keys {
        assert!(takes(&mut book, now, &signed(key, FIRST, 5, WALL), HEARSAY));
    }
    assert_eq!(book.lacking(&[], 3).len(), BATCH - 1);
    assert!(book.lacking(&book.have(), 3).is_empty());
    let mut have = book.have();
    have[4].2 = 4;
    have[9].1 = SECOND;
    assert_eq!(book.lacking(&have, 77).len(), 2);
    // Asking again and again brings everything.
    let mut other = AdvertBook::default();
    let mut rounds = 0;
    while other.have().len() < keys.len() {
        for one in book.lacking(&other.have(), rounds) {
            takes(&mut other, now, &one, HEARSAY);
        }
        rounds += 1;
    }
    assert!(rounds <= 4);
}

fn offered(publication: Arc<Publication>) -> Offered {
    Offered { publication: Some(publication), ..Offered::default() }
}

fn publication(slots_free: u16) -> Arc<Publication> {
    Arc::new(Publication {
        availability: Availability::Available,
        hygiene: Hygiene::Full,
        slots_total: 4,
        slots_free,
        queue: 0,
        gpus: Vec::new(),
        warm: Vec::new(),
        comfyui: String::new(),
        inventory_studio: Arc::default(),
        inventory_shared: Arc::default(),
        rules: ContentHash::of(b"rules"),
    })
}

#[test]
fn changes_are_bundled_and_silence_is_broken_by_heartbeats() {
    let (key, now) = (SecretKey::generate(), Instant::now());
    let mut own = OwnAdvert::new(key.public().node(), FIRST, [0; 32]);
    own.set_addresses(&[], &[]);
    assert!(own.due(now, WALL, POOL, &key).is_none(), "nothing to tell yet");
    own.set(offered(publication(4)));
    assert_eq!(own.due(now, WALL, POOL, &key).unwrap().verify().unwrap().seq, 1);
    own.set(offered(publication(4)));
    assert!(own.due(now + SPACING, WALL, POOL, &key).is_none(), "nothing has changed");
    own.set(offered(publication(3)));
    own.set(offered(publication(2)));
    assert!(own.due(now + SPACING / 2, WALL, POOL, &key).is_none(), "too soon");
    let second = own.due(now + SPACING, WALL, POOL, &key).unwrap().verify().unwrap();
    assert_eq!((second.seq, second.slots_free), (2, 2));
    assert!(own.due(now + SPACING + HEARTBEAT / 2, WALL, POOL, &key).is_none());
    assert_eq!(own.due(now + SPACING + HEARTBEAT, WALL, POOL, &key).unwrap().verify().unwrap().seq, 3);
}

#[test]
fn the_root_changes_with_either_inventory_and_gives_neither_away() {
    let (key, now) = (SecretKey::generate(), Instant::now());
    let root = |salt: u8, publication: &Publication| {
        let mut own = OwnAdvert::new(key.public().node(), FIRST, [salt; 32]);
        own.set_addresses(&[], &[]);
        own.set(offered(Arc::new(publication.clone())));
        own.due(now, WALL, POOL, &key).unwrap().verify().unwrap().inventory_root
    };
    let plain = (*publication(1)).clone();
    let other = Arc::new(Inventory { classes: vec!["KSampler".into()], models: Vec::new() });
    let studio = Publication { inventory_studio: other.clone(), ..plain.clone() };
    let shared = Publication { inventory_shared: other, ..plain.clone() };
    assert_ne!(root(0, &plain), root(0, &studio));
    assert_ne!(root(0, &plain), root(0, &shared));
    assert_ne!(root(0, &plain), root(1, &plain), "others cannot compute it");
}

#[test]
fn a_huge_inventory_is_cut_to_one_answer() {
    let classes = (0..50_000).map(|n| format!("SomeRatherLongNodeClassName{n:06}")).collect();
    let huge = Inventory { classes, models: Vec::new() };
    let cut = fitting(&huge, 1 << 20);
    assert!(codec::encode_body(&cut).len() <= 1 << 20);
    assert!(cut.classes.len() > 10_000);
}

#[test]
fn definitions_are_told_part_by_part_and_not_to_whom_has_them() {
    let key = SecretKey::generate();
    let mut own = OwnAdvert::new(key.public().node(), BootId::from_bytes([1; 16]), [0; 32]);
    let get = |own: &OwnAdvert, sister, part, have| own.definitions(sister, &DefinitionsGet { part, have });
    let nothing = get(&own, true, 0, Vec::new());
    assert_eq!((nothing.parts, nothing.bytes.len()), (0, 0));
    let long: Vec<u8> = (0..DEFINITIONS_PART + 5).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let told = Told { studio: Pack::of(long.clone()), shared: Pack::of(b"less".to_vec()) };
    own.set(Offered { told: Arc::new(told), ..offered(publication(4)) });
    let (first, second) = (get(&own, true, 0, Vec::new()), get(&own, true, 1, Vec::new()));
    assert_eq!([first.bytes, second.bytes].concat(), long);
    assert_eq!((first.parts, second.parts, first.root), (2, 2, ContentHash::of(&long)));
    assert!(get(&own, true, 2, Vec::new()).bytes.is_empty(), "there is no third");
    assert!(get(&own, true, 0, vec![first.root]).bytes.is_empty(), "whoever has it is sent nothing");
    let shared = get(&own, false, 0, vec![first.root]);
    assert_eq!((shared.bytes.as_slice(), shared.parts), (&b"less"[..], 1));
}

#[test]
fn new_definitions_make_others_ask_again() {
    let key = SecretKey::generate();
    let root = |told: Told| {
        let mut own = OwnAdvert::new(key.public().node(), BootId::from_bytes([1; 16]), [0; 32]);
        own.set_addresses(&[], &[]);
        own.set(Offered { told: Arc::new(told), ..offered(publication(1)) });
        let signed = own.due(Instant::now(), WALL, POOL, &key).unwrap();
        signed.verify().unwrap().inventory_root
    };
    let plain = root(Told::default());
    assert_ne!(plain, root(Told { studio: Pack::of(b"more".to_vec()), ..Told::default() }));
    assert_ne!(plain, root(Told { shared: Pack::of(b"more".to_vec()), ..Told::default() }));
}
