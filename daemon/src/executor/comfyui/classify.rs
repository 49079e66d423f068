//! From what ComfyUI says went wrong to what the requester should do next. Pure.

use scenemesh_protocol::task::{Failure, FailureClass};
use serde_json::Value;

use crate::executor::graph::{input_folder, is_file_input};

/// Most characters of somebody else's message that are passed on.
const QUOTED: usize = 400;

/// From the data of `execution_error`.
pub(super) fn execution_error(data: &Value) -> Failure {
    let text = |key: &str| data.get(key).and_then(Value::as_str).unwrap_or_default().trim();
    let (kind, message) = (text("exception_type"), text("exception_message"));
    let (node, class) = (text("node_id"), text("node_type"));
    let place = if node.is_empty() { "ComfyUI".to_owned() } else { format!("node {node} ({class})") };
    let said = match (kind, message) {
        ("", "") => "the execution failed and ComfyUI does not say why".to_owned(),
        ("", message) => quote(message),
        (kind, message) => format!("{}: {}", quote(kind), quote(message)),
    };
    Failure::new(class_of(kind, message, class), format!("{place}: {said}"))
}

fn class_of(kind: &str, message: &str, node_class: &str) -> FailureClass {
    let message = message.to_ascii_lowercase();
    let kind = kind.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    // PyTorch on CUDA, ROCm, MPS, DirectML and CPU, and ComfyUI's own wording.
    const MEMORY: [&str; 7] = [
        "out of memory",
        "allocation on device",
        "can't allocate memory",
        "cannot allocate memory",
        "not enough memory",
        "cublas_status_alloc_failed",
        "could not allocate tensor",
    ];
    const DISK: [&str; 5] = [
        "no space left on device",
        "not enough space on the disk",
        "disk quota exceeded",
        "errno 28",
        "errno 122",
    ];
    const FILE: [&str; 4] =
        ["no such file or directory", "file not found", "errno 2]", "cannot find the file"];
    if kind.contains("outofmemory") || kind == "memoryerror" || says(&MEMORY) {
        FailureClass::OutOfMemory
    } else if says(&DISK) {
        FailureClass::DiskFull
    } else if kind.contains("modulenotfound") || kind == "importerror" {
        FailureClass::MissingModelOrClass
    } else if kind.contains("filenotfound") || says(&FILE) {
        // Loaders of models name theirs; a loader of inputs lost what was uploaded for it.
        let of_inputs =
            ["image", "audio", "file", "video"].iter().any(|input| is_file_input(node_class, input));
        if of_inputs { FailureClass::Transfer } else { FailureClass::MissingModelOrClass }
    } else {
        FailureClass::Execution
    }
}

/// From the body of a 400 to `POST /prompt`, or from `node_errors` of a 200 that dropped outputs.
pub(super) fn refused(body: &Value) -> Failure {
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kind, message, details) = (text("/error/type"), text("/error/message"), text("/error/details"));
    let mut problems = Vec::new();
    for (node, errors) in body.get("node_errors").and_then(Value::as_object).into_iter().flatten() {
        let class = errors.get("class_type").and_then(Value::as_str).unwrap_or_default();
        for error in errors.get("errors").and_then(Value::as_array).into_iter().flatten() {
            problems.push(node_error(node, class, error));
        }
    }
    problems.sort_by_key(|(class, _)| *class != FailureClass::InvalidGraph);
    if let Some((class, _)) = problems.first() {
        let told: Vec<String> = problems.iter().take(5).map(|(_, what)| what.clone()).collect();
        return Failure::new(*class, told.join("; "));
    }
    let missing_class =
        kind == "missing_node_type" || message.contains("does not exist") || message.contains("not found");
    let class = if missing_class { FailureClass::MissingModelOrClass } else { FailureClass::InvalidGraph };
    let detail = match (message, details) {
        ("", _) => "ComfyUI refused the graph and does not say why".to_owned(),
        (message, "") => quote(message),
        (message, details) => format!("{} ({})", quote(message), quote(details)),
    };
    Failure::new(class, detail)
}

fn node_error(node: &str, class: &str, error: &Value) -> (FailureClass, String) {
    let text = |pointer: &str| error.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kind, message, details) = (text("/type"), text("/message"), text("/details"));
    let input = text("/extra_info/input_name");
    let missing = kind == "value_not_in_list" && !is_file_input(class, input);
    let failure = if missing { FailureClass::MissingModelOrClass } else { FailureClass::InvalidGraph };
    let folder = input_folder(class, input).filter(|_| missing);
    let value = text("/extra_info/received_value");
    let what = match folder {
        Some(folder) if !value.is_empty() => format!("the model {folder}/{} is not here", quote(value)),
        _ => format!("{}: {}", quote(message), quote(details)),
    };
    (failure, format!("node {node} ({class}), input {input}: {what}"))
}

/// Somebody else's words: one line, not too long, and without the directories of the machine they come from.
pub(super) fn quote(words: &str) -> String {
    let line = words.split_whitespace().map(without_directories).collect::<Vec<_>>().join(" ");
    if line.chars().count() > QUOTED { line.chars().take(QUOTED).chain(['…']).collect() } else { line }
}

/// A word that is an absolute path, quoted or not, shortened to its last part.
fn without_directories(word: &str) -> String {
    let start = word.find(|c: char| !"'\"([{<`".contains(c)).unwrap_or(0);
    let (before, path) = word.split_at(start);
    let path_alone = path.strip_prefix("file=").unwrap_or(path);
    let drive = path_alone.as_bytes().get(1) == Some(&b':')
        && path_alone.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
    let absolute = path_alone.starts_with(['/', '~']) || path_alone.starts_with("\\\\") || drive;
    match path_alone.trim_end_matches(['/', '\\']).rsplit_once(['/', '\\']) {
        Some((_, last)) if absolute => format!("{before}…/{last}"),
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn class(kind: &str, message: &str, node: &str) -> FailureClass {
        let data =
            json!({"node_id": "3", "node_type": node, "exception_type": kind, "exception_message": message});
        execution_error(&data).class
    }

    #[test]
    fn errors_find_their_class() {
        use FailureClass as F;
        assert_eq!(class("torch.OutOfMemoryError", "Allocation on device", "KSampler"), F::OutOfMemory);
        assert_eq!(class("RuntimeError", "CUDA out of memory. Tried …", "KSampler"), F::OutOfMemory);
        assert_eq!(
            class("RuntimeError", "DefaultCPUAllocator: can't allocate memory", "VAEDecode"),
            F::OutOfMemory
        );
        assert_eq!(class("OSError", "[Errno 28] No space left on device", "SaveImage"), F::DiskFull);
        assert_eq!(
            class("FileNotFoundError", "No such file or directory: 'x'", "LoraLoader"),
            F::MissingModelOrClass
        );
        assert_eq!(class("FileNotFoundError", "No such file or directory: 'x'", "LoadImage"), F::Transfer);
        assert_eq!(class("ModuleNotFoundError", "No module named 'xformers'", "X"), F::MissingModelOrClass);
        assert_eq!(class("ValueError", "tensors differ", "KSampler"), F::Execution);
        assert_eq!(execution_error(&Value::Null).class, F::Execution);
    }

    #[test]
    fn an_execution_error_names_the_node_and_no_directory() {
        let data = json!({"node_id": "1", "node_type": "LoadImage", "exception_type": "PIL.UnidentifiedImageError",
            "exception_message": "cannot identify image file '/opt/ComfyUI/input/broken.png'\n"});
        let expected =
            "node 1 (LoadImage): PIL.UnidentifiedImageError: cannot identify image file '…/broken.png'";
        assert_eq!(execution_error(&data).detail, expected);
        assert_eq!(quote(r"at C:\Users\kim\x.py and \\nas\vol\y.exr"), r"at …/x.py and …/y.exr");
    }

    #[test]
    fn refusals_as_recorded_are_read() {
        let missing = json!({"error": {"type": "prompt_outputs_failed_validation"}, "node_errors": {"4": {
            "class_type": "CheckpointLoaderSimple", "errors": [{"type": "value_not_in_list",
            "message": "Value not in list", "details": "ckpt_name: 'nope.safetensors' not in [...]",
            "extra_info": {"input_name": "ckpt_name", "received_value": "nope.safetensors"}}]}}});
        let failure = refused(&missing);
        assert_eq!(failure.class, FailureClass::MissingModelOrClass);
        assert!(failure.detail.ends_with("the model checkpoints/nope.safetensors is not here"), "{failure}");

        let class = json!({"error": {"type": "invalid_prompt", "details": "Node ID '#3'",
            "message": "Cannot execute because node NoSuchNode does not exist."}, "node_errors": {}});
        assert_eq!(refused(&class).class, FailureClass::MissingModelOrClass);
        let none = json!({"error": {"type": "prompt_no_outputs", "message": "Prompt has no outputs"}});
        assert_eq!(refused(&none), Failure::new(FailureClass::InvalidGraph, "Prompt has no outputs"));
        assert_eq!(refused(&json!([])).class, FailureClass::InvalidGraph);
    }
}
