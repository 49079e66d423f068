//! PURE: Korean for a graph that no single node can run. Its English is beside it, in `validate`.

use super::validate::{Lack, Shortfall, TOLD, TOLD_OF_ONE, short};

pub(super) fn sentence(shortfalls: &[Shortfall]) -> String {
    let told = shortfalls.iter().take(TOLD).map(|Shortfall { node, lacks }| {
        let things: Vec<String> = lacks.iter().take(TOLD_OF_ONE).map(lack).collect();
        let more = lacks.len().saturating_sub(TOLD_OF_ONE);
        let more = if more > 0 { format!(" 외 {more}가지") } else { String::new() };
        format!("{}: {}{more}", short(node), things.join(", "))
    });
    let told: Vec<String> = told.collect();
    let more = shortfalls.len().saturating_sub(TOLD);
    let more = if more > 0 { format!("; 그 밖에 {more}개 노드") } else { String::new() };
    format!(
        "풀에 이 그래프를 혼자 실행할 수 있는 노드가 없습니다 ({}{more}). 부족한 것을 한 노드에 갖추거나, 그래프를 나누어 따로 \
         제출하세요",
        told.join("; ")
    )
}

fn lack(lack: &Lack) -> String {
    match lack {
        Lack::Class { at, class } => format!("{} 클래스 없음 (그래프 노드 {})", short(class), short(at)),
        Lack::Model { at, model, .. } => {
            format!("{} 모델이 보이지 않음 (그래프 노드 {})", short(&model.to_string()), short(at))
        }
        Lack::Value { at, class, input } => {
            let (at, class, input) = (short(at), short(class), short(input));
            format!("{class}에서 {input} 값을 받지 않음 (그래프 노드 {at})")
        }
    }
}
