//! The journal leaves as one file and comes back.

use scenemesh_protocol::ids::NodeId;

use super::*;

fn me() -> NodeId {
    NodeId::from_bytes([7; 32])
}

async fn exported(run: &Run) -> Vec<u8> {
    let mut export = run.store.journal.export(me()).await.unwrap();
    let bytes = export.bytes();
    let mut whole = Vec::new();
    while let Some(piece) = export.next().await.unwrap() {
        whole.extend_from_slice(&piece);
    }
    assert_eq!(whole.len() as u64, bytes);
    whole
}

async fn import(run: &Run, node: NodeId, bytes: &[u8]) -> Result<u64, ImportError> {
    let mut import = run.store.journal.import(node).await?;
    for piece in bytes.chunks(1000) {
        import.write(piece.to_vec()).await?;
    }
    import.finish().await
}

#[tokio::test]
async fn an_exported_journal_comes_back_whole_or_not_at_all() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run = Run::open(from.path()).await.unwrap();
    let texts: Vec<String> = (0..60).map(|i| format!("{i}{}", "~".repeat(200))).collect();
    for text in &texts {
        run.commit_note(text).await;
    }
    let whole = exported(&run).await;
    assert!(matches!(import(&run, me(), &whole).await, Err(ImportError::NotEmpty)));
    run.stop().await;

    let run = Run::open(to.path()).await.unwrap();
    let stranger = NodeId::from_bytes([8; 32]);
    assert!(matches!(import(&run, stranger, &whole).await, Err(ImportError::Foreign { .. })));
    assert!(matches!(import(&run, me(), b"{}").await, Err(ImportError::NotAnExport)));
    let mut newer = whole.clone();
    newer[4] = 9;
    assert!(matches!(import(&run, me(), &newer).await, Err(ImportError::Version { version: 9 })));
    for at in [41, 60, 300, whole.len() / 2, whole.len() - 40, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        let refused = import(&run, me(), &flipped).await;
        assert!(matches!(refused, Err(ImportError::Damaged { .. })), "flip at {at}: {refused:?}");
        let refused = import(&run, me(), &whole[..at]).await;
        assert!(
            matches!(refused, Err(ImportError::Damaged { .. } | ImportError::NotAnExport)),
            "cut at {at}: {refused:?}"
        );
    }
    assert_eq!(import(&run, me(), &whole).await.unwrap(), 60);
    assert!(matches!(import(&run, me(), &whole).await, Err(ImportError::Busy)));
    run.stop().await;

    let run = Run::open(to.path()).await.unwrap();
    assert_eq!(*run.store.findings, [Finding::Imported { records: 60 }]);
    run.catch_up().await;
    assert_eq!(run.notes(), texts);
    run.commit_note("and on").await;
    run.stop().await;
    let run = Run::open(to.path()).await.unwrap();
    assert_eq!((run.notes().len(), run.store.findings.len()), (61, 0));
    run.stop().await;
}

#[tokio::test]
async fn an_import_does_not_replace_what_was_recorded_since() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run = Run::open(from.path()).await.unwrap();
    run.commit_note("theirs").await;
    let whole = exported(&run).await;
    run.stop().await;
    let run = Run::open(to.path()).await.unwrap();
    import(&run, me(), &whole).await.unwrap();
    run.commit_note("ours").await;
    run.stop().await;
    let run = Run::open(to.path()).await.unwrap();
    assert!(matches!(run.store.findings[..], [Finding::ImportLeft { .. }]));
    assert_eq!(run.notes(), ["ours"]);
    run.stop().await;
}
