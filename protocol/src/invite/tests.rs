use super::*;
use crate::keys::KemSecret;

fn invite() -> Invite {
    let inviter = SecretKey::from_seed(&[1; 32]).public().node();
    Invite::new(
        PoolId::from_bytes([2; 16]),
        inviter,
        StudioId::from_bytes([12; 16]),
        InviteSecret::from_bytes([3; 16]),
        ["/ip4/192.168.1.20/tcp/7873", "/dns/ws-01.example/tcp/7873"],
    )
}

struct Joiner {
    node: SecretKey,
    kem: KemSecret,
}

impl Joiner {
    fn new() -> Self {
        Self { node: SecretKey::from_seed(&[4; 32]), kem: KemSecret::from_bytes(&[5; 32]) }
    }

    fn joining(&self) -> Joining {
        Joining {
            pool: invite().pool,
            inviter: invite().inviter,
            invite: invite().key().public(),
            node: self.node.public(),
            kem: self.kem.public(),
            name: "ws-02".into(),
            nonce: [6; 16],
            admin: None,
            consent: None,
        }
    }

    fn sign(&self, joining: &Joining) -> JoinRequest {
        JoinRequest::sign(joining, &invite().key(), &self.node)
    }
}

fn verify(request: &JoinRequest) -> Result<Joining, BadJoin> {
    request.verify(&invite().key().public(), invite().pool, invite().inviter)
}

#[test]
fn an_invite_is_its_code() {
    let code = invite().to_code();
    assert_eq!(
        code.as_str(),
        "smesh1aibaeaqcaibaeaqcaibaeaqcakfiry65oqe7dfp5klns2pf2lvzmuzyjx4ozieq36n2iqanub5xvyd\
         ambqgaydambqgaydambqgaydadambqgaydambqgaydambqgaydaia4bkabcqpmcayno5zs2mbrfzsxqylnobwgkhwb2esd7cq"
    );
    assert_eq!(Invite::from_code(&code), Ok(invite()));
    assert_eq!(Invite::from_code(&format!(" {}\n", code.to_uppercase())), Ok(invite()));
}

#[test]
fn what_is_wrong_with_a_code_is_told_apart() {
    let code = invite().to_code();
    assert_eq!(Invite::from_code("12D3KooW"), Err(BadInvite::NotAnInvite));
    assert_eq!(Invite::from_code(&code[..40]), Err(BadInvite::Damaged));
    assert_eq!(Invite::from_code(&code.replacen('1', "3", 1)), Err(BadInvite::Version { theirs: '3' }));
    let words = BadInvite::Version { theirs: '3' }.to_string();
    assert!(words.contains("version 3, this release reads version 1"), "{words}");
    // A right checksum over what is no invite.
    assert_eq!(Invite::from_code(&text_code::write(WORD, VERSION, b"short")), Err(BadInvite::Damaged));
}

#[test]
fn an_invite_keeps_three_usable_addresses() {
    let long = format!("/dns/{}/tcp/1", "x".repeat(200));
    let addresses =
        ["nonsense", &long, "/ip4/10.0.0.1/tcp/1", "/a/b", "/ip6/::1/tcp/2", "/ip4/10.0.0.2/tcp/1"];
    let invite = Invite::new(
        invite().pool,
        invite().inviter,
        invite().studio,
        InviteSecret::from_bytes([3; 16]),
        addresses,
    );
    assert_eq!(invite.addresses(), ["/ip4/10.0.0.1/tcp/1", "/a/b", "/ip6/::1/tcp/2"]);
    assert_eq!(Invite::from_code(&invite.to_code()), Ok(invite));
}

#[test]
fn the_words_are_fit_to_be_spoken() {
    let words: Vec<&str> = WORDS.lines().collect();
    assert_eq!(words.len(), 256);
    let mut beginnings: Vec<&str> = words.iter().map(|word| &word[..3]).collect();
    assert!(beginnings.is_sorted());
    beginnings.dedup();
    assert_eq!(beginnings.len(), 256, "the first three letters tell words apart");
    for word in words {
        assert!((4..=8).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_lowercase()), "{word}");
    }
}

#[test]
fn check_words_belong_to_one_code() {
    assert_eq!(invite().check_words().to_string(), "radar tractor glacier bottle");
    let mut other = invite();
    other.addresses.pop();
    assert_ne!(other.check_words(), invite().check_words());
}

#[test]
fn the_invite_key_depends_on_all_of_the_invite_but_its_addresses() {
    let key = invite().key().public();
    assert_ne!(Invite { pool: PoolId::from_bytes([9; 16]), ..invite() }.key().public(), key);
    assert_ne!(Invite { inviter: NodeId::from_bytes([9; 32]), ..invite() }.key().public(), key);
    assert_ne!(Invite { secret: InviteSecret::from_bytes([9; 16]), ..invite() }.key().public(), key);
    assert_eq!(Invite { addresses: Vec::new(), ..invite() }.key().public(), key);
}

#[test]
fn neither_secret_nor_code_prints() {
    let debug = format!("{:?}", invite());
    assert!(debug.contains("InviteSecret(…)"), "{debug}");
}

#[test]
fn a_joiner_proves_the_code_and_its_own_key() {
    let joiner = Joiner::new();
    let request = JoinRequest::new(&invite(), &joiner.node, joiner.kem.public(), "ws-02", None);
    let joining = verify(&request).unwrap();
    assert!(joining.consent.is_some());
    assert_eq!(Joining { nonce: [6; 16], consent: None, ..joining }, joiner.joining());
}

#[test]
fn a_joiner_without_the_code_or_its_key_is_refused() {
    let joiner = Joiner::new();
    let thief = SecretKey::from_seed(&[7; 32]);
    let without_code = JoinRequest::sign(&joiner.joining(), &thief, &joiner.node);
    assert_eq!(verify(&without_code), Err(BadJoin::NotInvited(ForgedSignature::Mismatch)));
    let without_key = JoinRequest::sign(&joiner.joining(), &invite().key(), &thief);
    assert_eq!(verify(&without_key), Err(BadJoin::NotItsKey(ForgedSignature::Mismatch)));
    let request = joiner.sign(&joiner.joining());
    assert_eq!(request.verify(&thief.public(), invite().pool, invite().inviter), Err(BadJoin::OtherInvite));
}

#[test]
fn a_request_is_for_one_invite_of_one_node_of_one_pool() {
    let joiner = Joiner::new();
    for strange in [
        Joining { pool: PoolId::from_bytes([9; 16]), ..joiner.joining() },
        Joining { inviter: NodeId::from_bytes([9; 32]), ..joiner.joining() },
    ] {
        assert_eq!(verify(&joiner.sign(&strange)), Err(BadJoin::Misdirected));
    }
    let other = Joining { invite: joiner.node.public(), ..joiner.joining() };
    let mut request = joiner.sign(&other);
    assert_eq!(verify(&request), Err(BadJoin::OtherInvite));
    request.invite = invite().key().public();
    assert_eq!(verify(&request), Err(BadJoin::OtherInvite));
}

#[test]
fn weak_keys_and_bad_names_are_refused() {
    let joiner = Joiner::new();
    let mut identity = [0; 32];
    identity[0] = 1;
    for weak in [
        Joining { kem: KemPublic::from_bytes([0; 32]), ..joiner.joining() },
        Joining { kem: KemPublic::from_bytes(identity), ..joiner.joining() },
        Joining { admin: Some(PublicKey::from_bytes(identity)), ..joiner.joining() },
    ] {
        assert_eq!(verify(&joiner.sign(&weak)), Err(BadJoin::WeakKey));
    }
    let weak = Joining { node: PublicKey::from_bytes(identity), ..joiner.joining() };
    assert_eq!(verify(&joiner.sign(&weak)), Err(BadJoin::NotItsKey(ForgedSignature::BadKey)));
    for name in ["", " ws", "a\nb", &"x".repeat(65)] {
        let named = Joining { name: name.into(), ..joiner.joining() };
        assert_eq!(verify(&joiner.sign(&named)), Err(BadJoin::BadName), "{name:?}");
    }
}

#[test]
fn every_flipped_byte_of_a_request_is_refused() {
    let joiner = Joiner::new();
    let bytes = codec::encode_body(&joiner.sign(&joiner.joining()));
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let refused = codec::decode_body::<JoinRequest>(&changed, 4096).map_or(true, |r| verify(&r).is_err());
        assert!(refused, "byte {at}");
    }
}
