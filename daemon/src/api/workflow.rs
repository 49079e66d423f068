//! PURE: what can be said of a workflow before it is accepted. Whatever is found here costs nobody a byte.

use std::sync::Arc;

use scenemesh_protocol::advert::Inventory;
use scenemesh_protocol::api::{ErrorCode, GRAPH_LIMIT, Setting, Variation};
use scenemesh_protocol::task::ModelName;
use serde_json::Value;

use super::korean;
use super::trouble::Trouble;
use crate::executor;
use crate::executor::graph::{Graph, GraphError};
use crate::messages::{Message, NotThere};
use crate::scheduler::batch::Varied;

/// Names in one sentence at most.
const NAMES_SHOWN: usize = 8;

/// Reads a workflow.
pub(super) fn read(workflow: &str) -> Result<Graph, Trouble> {
    if workflow.len() > GRAPH_LIMIT {
        let message = Message::WorkflowTooLarge { limit: GRAPH_LIMIT };
        return Err(Trouble::new(ErrorCode::TooLarge, &message).hint(&Message::HintNotEmbedded));
    }
    Graph::parse(workflow.as_bytes()).map_err(|error| graph_trouble(&error))
}

/// Reads a workflow, applies `--set`, and checks that the files it names are the files that come along.
pub(super) fn prepare(workflow: &str, set: &[Setting], inputs: &[String]) -> Result<Graph, Trouble> {
    let graph = read_set(workflow, set)?;
    check_inputs(&graph, inputs)?;
    Ok(graph)
}

/// Reads a workflow and applies `--set`.
pub(super) fn read_set(workflow: &str, set: &[Setting]) -> Result<Graph, Trouble> {
    let mut graph = read(workflow)?;
    for setting in set {
        let value = value_for(&graph, setting)?;
        graph.set(&setting.path, value).map_err(|error| graph_trouble(&error))?;
    }
    Ok(graph)
}

/// Reads what is varied, each value as what stands in the workflow, and calls `seen` with the graph for each value that
/// changes which models it needs.
pub(super) fn vary(
    graph: &Graph,
    asked: &[Variation],
    mut seen: impl FnMut(&Graph) -> Result<(), Trouble>,
) -> Result<Vec<Varied>, Trouble> {
    let models = graph.models();
    let mut all: Vec<Varied> = Vec::new();
    for Variation { path, values } in asked {
        if all.iter().any(|varied| varied.path == *path) {
            return Err(Trouble::new(ErrorCode::Usage, &Message::VariedTwice { path: path.clone() }));
        }
        let mut changed = graph.clone();
        let mut varied = Varied { path: path.clone(), values: Vec::with_capacity(values.len()) };
        for value in values {
            let value = value_for(graph, &Setting { path: path.clone(), value: value.clone() })?;
            varied.values.push(value.to_string());
            changed.set(path, value).map_err(|error| graph_trouble(&error))?;
            if changed.models() != models {
                seen(&changed)?;
            }
        }
        all.push(varied);
    }
    Ok(all)
}

fn graph_trouble(error: &GraphError) -> Trouble {
    let code = match error {
        GraphError::TooLarge { .. } | GraphError::TooDeep | GraphError::TooManyNodes { .. } => {
            ErrorCode::TooLarge
        }
        GraphError::NotJson { .. } => ErrorCode::NotJson,
        GraphError::UiFormat => ErrorCode::UiFormat,
        GraphError::NotAGraph { .. } => ErrorCode::InvalidGraph,
        GraphError::BadPath { .. } | GraphError::NoSuchNode { .. } | GraphError::NoSuchInput { .. } => {
            ErrorCode::NoSuchSetting
        }
    };
    let trouble = Trouble::of(code, error, Some(korean::graph(error)));
    match error {
        GraphError::NotJson { .. } | GraphError::NotAGraph { .. } => trouble.hint(&Message::HintExportApi),
        _ => trouble,
    }
}

/// Text where text stands; elsewhere JSON, and where neither number nor switch stands, text again.
fn value_for(graph: &Graph, setting: &Setting) -> Result<Value, Trouble> {
    let stands = setting.path.match_indices('.').find_map(|(at, _)| {
        let (node, input) = (&setting.path[..at], &setting.path[at + 1..]);
        graph.node(node)?.inputs.get(input)
    });
    let stands = match stands {
        Some(Value::String(_)) => return Ok(Value::String(setting.value.clone())),
        Some(Value::Number(_)) => Some("number"),
        Some(Value::Bool(_)) => Some("boolean"),
        _ => None,
    };
    match (serde_json::from_str(&setting.value), stands) {
        (Ok(value), _) => Ok(value),
        (Err(_), None) => Ok(Value::String(setting.value.clone())),
        (Err(_), Some(stands)) => {
            let (path, value) = (setting.path.clone(), setting.value.clone());
            let message = Message::BadSetting { path, value, stands: stands.into() };
            Err(Trouble::new(ErrorCode::NoSuchSetting, &message).hint(&Message::HintQuote))
        }
    }
}

fn check_inputs(graph: &Graph, inputs: &[String]) -> Result<(), Trouble> {
    if let Some(name) =
        inputs.iter().enumerate().find_map(|(at, name)| inputs[..at].contains(name).then_some(name))
    {
        let message = Message::DuplicateInput { name: name.clone() };
        return Err(Trouble::new(ErrorCode::Usage, &message).hint(&Message::HintRenameInput));
    }
    let named = graph.file_inputs();
    if let Some(file) = named.iter().find(|file| !inputs.iter().any(|name| name == file.name())) {
        let name = file.name().to_owned();
        let (node, class, input) = (file.node.clone(), file.class.clone(), file.input.clone());
        let message = Message::MissingInput { name: name.clone(), node, class, input };
        return Err(Trouble::new(ErrorCode::MissingInput, &message).hint(&Message::HintGiveInput { name }));
    }
    if let Some(name) = inputs.iter().find(|name| !named.iter().any(|file| file.name() == name.as_str())) {
        let names = some_names(named.iter().map(|file| file.name().to_owned()));
        let message = Message::UnusedInput { name: name.clone(), names };
        return Err(Trouble::new(ErrorCode::MissingInput, &message).hint(&Message::HintRenameInput));
    }
    Ok(())
}

/// What a machine can run.
#[derive(Clone, Debug)]
pub(super) enum Stock {
    /// A ComfyUI beside this node.
    Here(Arc<executor::Inventory>),
    There(Arc<Inventory>),
}

impl Stock {
    fn has_class(&self, class: &str) -> bool {
        match self {
            Self::Here(inventory) => inventory.has_class(class),
            Self::There(inventory) => {
                inventory.classes.binary_search_by(|known| known.as_str().cmp(class)).is_ok()
            }
        }
    }

    fn has_model(&self, model: &ModelName) -> bool {
        match self {
            Self::Here(inventory) => inventory.has_model(model),
            Self::There(inventory) => model.find(&inventory.models).is_some(),
        }
    }
}

/// A machine that renders, as far as a submission is concerned.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) name: String,
    /// Why it cannot be asked, whatever happens; `None` when it is in reach and renders.
    pub(super) not_there: Option<NotThere>,
    pub(super) own_studio: bool,
    /// One per ComfyUI; empty when nothing is known.
    pub(super) stock: Vec<Stock>,
}

impl Machine {
    fn any(&self, has: impl Fn(&Stock) -> bool) -> bool {
        self.stock.iter().any(has)
    }
}

/// Refuses a workflow that none of the machines in reach could run. Where nothing is known of any, nothing is
/// refused: the job waits, and `why` says for whom.
pub(super) fn check_machines(graph: &Graph, machines: &[Machine]) -> Result<(), Trouble> {
    let in_reach: Vec<&Machine> = machines.iter().filter(|machine| machine.not_there.is_none()).collect();
    if in_reach.is_empty() {
        let why = |machine: &Machine| Some((machine.name.clone(), machine.not_there?));
        let machines = machines.iter().filter_map(why).take(NAMES_SHOWN).collect();
        return Err(Trouble::new(ErrorCode::NoEligibleNode, &Message::NobodyInReach { machines })
            .hint(&Message::HintNobodyInReach));
    }
    let known: Vec<&Machine> = in_reach.iter().filter(|machine| !machine.stock.is_empty()).copied().collect();
    if known.is_empty() {
        return Ok(());
    }
    let unknown = some_names(
        in_reach.iter().filter(|machine| machine.stock.is_empty()).map(|machine| machine.name.clone()),
    );
    let (classes, models) = (graph.classes(), graph.models());
    for class in &classes {
        if !known.iter().any(|machine| machine.any(|stock| stock.has_class(class))) {
            let nodes = graph.nodes().filter(|node| node.class == class).map(|node| node.id.to_owned());
            let message = Message::UnknownClass { class: class.clone(), nodes: some_names(nodes), unknown };
            return Err(Trouble::new(ErrorCode::UnknownClass, &message).hint(&Message::HintUnknownClass));
        }
    }
    for model in &models {
        if !known.iter().any(|machine| machine.any(|stock| stock.has_model(model))) {
            let message = Message::MissingModel { model: model.to_string(), unknown };
            return Err(Trouble::new(ErrorCode::MissingModel, &message).hint(&elsewhere(model, machines)));
        }
    }
    let has_all = |stock: &Stock| {
        classes.iter().all(|class| stock.has_class(class))
            && models.iter().all(|model| stock.has_model(model))
    };
    if !unknown.is_empty() || known.iter().any(|machine| machine.any(has_all)) {
        return Ok(());
    }
    let lacks = |machine: &&Machine| {
        let classes = classes.iter().filter(|class| !machine.any(|stock| stock.has_class(class))).cloned();
        let models = models.iter().filter(|model| !machine.any(|stock| stock.has_model(model)));
        let lacking = some_names(classes.chain(models.map(ToString::to_string)));
        format!("{}: {lacking}", machine.name)
    };
    let reasons = known.iter().map(lacks).collect::<Vec<_>>().join("; ");
    Err(Trouble::new(ErrorCode::NoEligibleNode, &Message::NoNodeHasAll { reasons })
        .hint(&Message::HintNoNodeHasAll))
}

/// Who has a model that nobody in reach has: the own studio's machines first.
fn elsewhere(model: &ModelName, machines: &[Machine]) -> Message {
    let holders = |own: bool| {
        let names = machines
            .iter()
            .filter(|machine| machine.not_there.is_some() && machine.own_studio == own)
            .filter(|machine| machine.any(|stock| stock.has_model(model)))
            .map(|machine| machine.name.clone());
        some_names(names)
    };
    let (studio, pool) = (holders(true), holders(false));
    let model = model.to_string();
    match (studio.is_empty(), pool.is_empty()) {
        (false, _) => Message::HintModelElsewhere { model, nodes: studio, reach: "studio" },
        (true, false) => Message::HintModelElsewhere { model, nodes: pool, reach: "pool" },
        (true, true) => Message::HintModelNowhere,
    }
}

/// A few names with commas; the rest as `…`.
fn some_names(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.take(NAMES_SHOWN + 1).collect();
    if names.len() > NAMES_SHOWN {
        names[NAMES_SHOWN] = "…".into();
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::Lang;

    const WORKFLOW: &str = r#"{
        "3": {"class_type": "KSampler", "inputs": {"seed": 7, "text": "a cat", "flag": true, "model": ["4", 0]}},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny.safetensors"}},
        "9": {"class_type": "LoadImage", "inputs": {"image": "start.png [input]"}}
    }"#;

    fn inputs() -> Vec<String> {
        vec!["start.png".into()]
    }

    fn set(path: &str, value: &str) -> Result<Value, Trouble> {
        let setting = Setting { path: path.into(), value: value.into() };
        let graph = prepare(WORKFLOW, &[setting], &inputs())?;
        let (node, input) = path.split_once('.').unwrap();
        Ok(graph.node(node).unwrap().inputs[input].clone())
    }

    fn refusal(trouble: Trouble) -> (ErrorCode, String) {
        let body = trouble.body(Lang::En);
        (body.code, body.message)
    }

    #[test]
    fn settings_take_the_kind_of_what_stood_there() {
        assert_eq!(set("3.seed", "42"), Ok(42.into()));
        assert_eq!(set("3.text", "42"), Ok("42".into()));
        assert_eq!(set("3.text", "\"quoted\""), Ok("\"quoted\"".into()));
        assert_eq!(set("3.flag", "false"), Ok(false.into()));
        assert_eq!(set("3.model", "[\"5\",1]"), Ok(serde_json::json!(["5", 1])));
        let (code, message) = refusal(set("3.seed", "many").unwrap_err());
        assert_eq!(code, ErrorCode::NoSuchSetting);
        assert_eq!(message, "--set 3.seed=many: number stands there, and \"many\" is not JSON");
        let (code, message) = refusal(set("8.seed", "1").unwrap_err());
        assert_eq!(code, ErrorCode::NoSuchSetting);
        assert_eq!(message, "the workflow has no node \"8\"");
        let (code, _) = refusal(set("3.steps", "1").unwrap_err());
        assert_eq!(code, ErrorCode::NoSuchSetting);
    }

    #[test]
    fn what_is_no_graph_is_told_apart() {
        let refused = |text: &str| refusal(prepare(text, &[], &[]).unwrap_err()).0;
        assert_eq!(refused("{"), ErrorCode::NotJson);
        assert_eq!(refused("[]"), ErrorCode::InvalidGraph);
        assert_eq!(refused(r#"{"nodes": [], "links": []}"#), ErrorCode::UiFormat);
        assert_eq!(refused(&" ".repeat(GRAPH_LIMIT + 1)), ErrorCode::TooLarge);
        let trouble = prepare(r#"{"nodes": [], "links": []}"#, &[], &[]).unwrap_err();
        let hint = trouble.body(Lang::En).hint.unwrap();
        assert!(hint.contains("Export (API)"), "{hint}");
        let hint = trouble.body(Lang::Ko).hint.unwrap();
        assert!(hint.contains("Export (API)"), "{hint}");
    }

    #[test]
    fn files_that_are_named_and_files_that_come_are_the_same() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(prepare(WORKFLOW, &[], &inputs()).is_ok());
        let refused = |given: &[&str]| refusal(prepare(WORKFLOW, &[], &names(given)).unwrap_err());
        assert_eq!(
            refused(&[]),
            (
                ErrorCode::MissingInput,
                "the workflow needs the file \"start.png\" (node 9, LoadImage.image), and it was not sent"
                    .into()
            )
        );
        assert_eq!(
            refused(&["start.png", "end.png"]),
            (
                ErrorCode::MissingInput,
                "the file \"end.png\" was sent, but the workflow does not name it; it names start.png".into()
            )
        );
        assert_eq!(refused(&["start.png", "start.png"]).0, ErrorCode::Usage);
    }

    fn machine(
        name: &str,
        (in_reach, own_studio): (bool, bool),
        stock: Option<(&[&str], &[&str])>,
    ) -> Machine {
        let of = |(classes, models): (&[&str], &[&str])| {
            let models = models.iter().map(|name| ModelName::new("checkpoints", name)).collect();
            let classes = classes.iter().map(|name| (*name).to_owned()).collect();
            Stock::Here(Arc::new(executor::Inventory::of(classes, models)))
        };
        let not_there = (!in_reach).then_some(NotThere::OutOfReach);
        Machine { name: name.into(), not_there, own_studio, stock: stock.map(of).into_iter().collect() }
    }

    #[test]
    fn a_workflow_that_nobody_in_reach_can_run_is_refused_with_names() {
        const ALL: &[&str] = &["CheckpointLoaderSimple", "KSampler", "LoadImage"];
        const TINY: &[&str] = &["tiny.safetensors"];
        let graph = prepare(WORKFLOW, &[], &inputs()).unwrap();
        let check = |machines: &[Machine]| check_machines(&graph, machines).map_err(|t| t.body(Lang::En));

        let here = machine("ws-01", (true, true), Some((ALL, TINY)));
        assert_eq!(check(std::slice::from_ref(&here)), Ok(()));
        let starting = machine("ws-01", (true, true), None);
        assert_eq!(check(&[starting]), Ok(()), "nothing is known, so nothing is refused");
        let desk = machine("desk", (false, true), None);
        let desk = Machine { not_there: Some(NotThere::NoComfyui), ..desk };
        let body = check(&[desk, machine("ws-02", (false, true), None)]).unwrap_err();
        assert_eq!(body.code, ErrorCode::NoEligibleNode);
        assert_eq!(
            body.message,
            "no node can take this job: desk has no ComfyUI configured, ws-02 is out of reach"
        );

        let bare = machine("ws-01", (true, true), Some((ALL, &[])));
        let other = machine("ws-02", (false, true), Some((ALL, TINY)));
        let away = machine("ws-03", (true, true), None);
        let body = check(&[bare.clone(), other, away]).unwrap_err();
        assert_eq!(body.code, ErrorCode::MissingModel);
        assert_eq!(
            body.message,
            "no node in reach has the model \"checkpoints/tiny.safetensors\"; not known of ws-03"
        );
        assert_eq!(
            body.hint.as_deref(),
            Some("checkpoints/tiny.safetensors is on ws-02: use --reach studio")
        );

        let old = machine("ws-01", (true, true), Some((&["KSampler"], TINY)));
        let body = check(&[old]).unwrap_err();
        assert_eq!(body.code, ErrorCode::UnknownClass);
        assert_eq!(
            body.message,
            "no node in reach has the node class \"CheckpointLoaderSimple\" (used by 4)"
        );

        let half = machine("ws-04", (true, true), Some((&["LoadImage"], TINY)));
        let body = check(&[bare, half]).unwrap_err();
        assert_eq!(body.code, ErrorCode::NoEligibleNode);
        assert_eq!(
            body.message,
            "no single node in reach can take this workflow: ws-01: checkpoints/tiny.safetensors; ws-04: \
             CheckpointLoaderSimple, KSampler"
        );
    }
}
