use super::*;

fn in_korean(text: &str) -> String {
    phrase(Lang::Ko, text)
}

#[test]
fn sentences_are_found_with_what_stands_in_them() {
    for (english, korean) in [
        ("its ComfyUI is not ready", "ComfyUI가 준비되지 않음"),
        (
            "it parked itself: tasks of 3 nodes failed there one after the other; it takes others' work again when a \
             small render of its own comes out right",
            "스스로 쉬는 중: 노드 3개의 태스크가 거기서 잇달아 실패함; 자체 시험 렌더가 제대로 나오면 다른 사람의 작업을 다시 받음",
        ),
        ("it has 8.0 GB of video memory, 24.0 GB needed", "비디오 메모리 8.0 GB, 24.0 GB 필요"),
        (
            "it lacks model checkpoints/a.safetensors and 2 more",
            "모델 없음: checkpoints/a.safetensors 외 2개",
        ),
        (
            "node 3 (KSampler), input steps: 0 is smaller than the least allowed, 1; node 4: class X is not installed \
             here; and 2 more",
            "노드 3 (KSampler), 입력 steps: 0 값이 최솟값 1보다 작음; 노드 4: 클래스 X 설치되지 않음; 그 밖에 2건",
        ),
        (
            "GET /history at http://127.0.0.1:8188: no answer (tcp connect error: Connection refused (os error 111)); \
             is ComfyUI running there?",
            "http://127.0.0.1:8188에 GET /history: 응답 없음 (연결이 거부됨); ComfyUI가 실행 중인가요?",
        ),
        (
            "its clock is 20 minutes behind ours: let both set their clocks from a time server",
            "시계가 이 노드보다 20분 느림: 양쪽 시계를 시간 서버에 맞추세요",
        ),
        (
            "/ip4/10.0.0.9/tcp/7872: No route to host (os error 113)",
            "/ip4/10.0.0.9/tcp/7872: 호스트로 가는 경로가 없음",
        ),
    ] {
        assert_eq!(in_korean(english), korean);
        assert_eq!(phrase(Lang::En, english), english);
    }
}

#[test]
fn what_is_not_known_stays_as_it_came() {
    for words in ["", "it rains", "torch: CUDA error", "{}", "{0}; {1}", "it ", "node 3 (", "; ; ;"] {
        assert_eq!(in_korean(words), words);
    }
    assert_eq!(
        in_korean("node 3 (KSampler): RuntimeError: tensors differ"),
        "노드 3 (KSampler): RuntimeError: tensors differ"
    );
    let long = "it ".repeat(LONGEST);
    assert_eq!(in_korean(&long), long);
}

/// Every string literal of the sources, each filled-in part as `{}`.
fn literals() -> Vec<String> {
    let mut found = Vec::new();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src"), root.join("../protocol/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let own = path.ends_with("messages/phrases") || path.ends_with("phrases.rs");
            if path.is_dir() && !own {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !own {
                found.extend(literals_of(&std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

fn literals_of(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in joined(source).lines().filter(|line| !line.trim_start().starts_with("//")) {
        let mut rest = line;
        while let Some((_, after)) = rest.split_once('"') {
            let mut text = String::new();
            let mut chars = after.char_indices();
            let mut end = after.len();
            while let Some((at, c)) = chars.next() {
                match c {
                    '"' => {
                        end = at + 1;
                        break;
                    }
                    '\\' => text.extend(chars.next().map(|(_, escaped)| escaped)),
                    c => text.push(c),
                }
            }
            rest = &after[end..];
            found.push(with_holes(&text));
        }
    }
    found
}

/// Literals that go on in the next line, in one.
fn joined(source: &str) -> String {
    let mut text = String::new();
    for line in source.lines() {
        match line.strip_suffix('\\') {
            Some(begun) if text.is_empty() || text.ends_with('\n') => text.push_str(begun),
            Some(more) => text.push_str(more.trim_start()),
            None if text.is_empty() || text.ends_with('\n') => text = text + line + "\n",
            None => text = text + line.trim_start() + "\n",
        }
    }
    text
}

fn with_holes(literal: &str) -> String {
    let mut text = String::new();
    let mut rest = literal;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((_, after)) = after.split_once('}') else { break };
        text = text + before + "{}";
        rest = after;
    }
    text + rest
}

/// What a pattern has of its own, without the holes at its ends.
fn core(pattern: &str) -> &str {
    let mut core = pattern;
    loop {
        let shorter = core.trim_start_matches("{}").trim_end_matches("{}").trim_matches([':', ',', ' ']);
        if shorter == core {
            return core;
        }
        core = shorter;
    }
}

#[test]
fn every_sentence_is_made_somewhere() {
    let literals = literals();
    let systems =
        |english: &str| english.contains("(os error {})") || english.starts_with("tcp connect error");
    for (english, _) in book::PHRASES.iter().filter(|(english, _)| !systems(english)) {
        let core = core(english);
        assert!(
            literals.iter().any(|literal| literal.contains(core)),
            "{english:?} is said nowhere any more: reword it in messages/phrases/book.rs as it is now"
        );
    }
}

#[test]
fn every_sentence_has_its_holes_and_hangul() {
    for (at, (english, korean)) in book::PHRASES.iter().enumerate() {
        let count = english.matches("{}").count();
        let filled = fill(korean, &vec!["7"; count], 1);
        assert!(!english.contains("; "), "{english:?}: a part between semicolons is a phrase of its own");
        assert!(
            korean.contains('!') || filled.is_some_and(|text| !text.contains(['{', '}'])),
            "{english:?}: {korean:?} fills holes that are not there"
        );
        let hangul = |c: char| ('가'..='힣').contains(&c);
        assert!(korean.contains('!') || korean.contains(hangul), "{korean:?} has no Hangul");
        let first = book::PHRASES.iter().position(|(other, _)| other == english);
        assert_eq!(first, Some(at), "{english:?} stands twice");
    }
}
