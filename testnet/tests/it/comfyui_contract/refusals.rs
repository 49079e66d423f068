//! How ComfyUI refuses a prompt: one shape per mistake.

use serde_json::{Value, json};

use super::subject::{Subject, neutral, recorded};

pub(super) async fn prompt_errors(subject: &Subject) {
    let checkpoint = subject.checkpoint().await;
    for (case, exchange) in recorded("prompt-errors").as_object().unwrap() {
        let text = match &exchange["request"] {
            Value::String(text) => text.clone(),
            request => request.to_string().replace("tiny_sd15.safetensors", &checkpoint),
        };
        let answer = subject.post_text("/prompt", text).await;
        assert_eq!(json!(answer.status), exchange["response"]["status"], "{case}: {}", answer.body);
        if answer.body.is_null() {
            assert_eq!(json!(String::from_utf8_lossy(&answer.bytes)), exchange["response"]["body"], "{case}");
            continue;
        }
        let strip = |body: &Value| {
            let mut body = neutral(body);
            // Lists of local models differ from server to server.
            for node in body["node_errors"].as_object_mut().into_iter().flat_map(|nodes| nodes.values_mut()) {
                for error in node["errors"]
                    .as_array_mut()
                    .into_iter()
                    .flatten()
                    .filter(|error| error["type"] == "value_not_in_list")
                {
                    error["extra_info"]["input_config"] = Value::Null;
                }
            }
            body
        };
        assert_eq!(strip(&answer.body), strip(&exchange["response"]["body"]), "{case}");
    }
}

/// Shapes that have no recording; these were read off the real one by this very check.
pub(crate) async fn more_prompt_errors(subject: &Subject) {
    let error_of = async |prompt: Value| {
        let answer = subject.post("/prompt", &json!({"prompt": prompt})).await;
        assert_eq!(answer.status, 400, "{}", answer.body);
        answer.body
    };
    let save = |source: Value| json!({"class_type": "SaveImage", "inputs": {"images": source, "filename_prefix": "x"}});
    let empty = |colour: Value| json!({"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": colour}});

    let body = error_of(json!({"1": {"class_type": "LoadImage", "inputs": {"image": "no such file.png"}}, "2": save(json!(["1", 0]))})).await;
    let error = &body["node_errors"]["1"]["errors"][0];
    assert_eq!(
        *error,
        json!({
            "type": "custom_validation_failed", "message": "Custom validation failed for node",
            "details": "image - Invalid image file: no such file.png", "extra_info": {"input_name": "image"},
        })
    );

    let body = error_of(json!({"1": empty(json!("red")), "2": save(json!(["1", 0]))})).await;
    let error = &body["node_errors"]["1"]["errors"][0];
    assert_eq!(error["type"], "invalid_input_type");
    assert_eq!(error["message"], "Failed to convert an input value to a INT value");
    assert_eq!(error["details"], "color, red, invalid literal for int() with base 10: 'red'");
    assert_eq!(error["extra_info"]["exception_message"], "invalid literal for int() with base 10: 'red'");

    let body = error_of(json!({"1": empty(json!(null)), "2": save(json!(["1"]))})).await;
    assert_eq!(body["node_errors"]["2"]["errors"][0]["type"], "bad_linked_input");
    assert_eq!(body["node_errors"]["2"]["errors"][0]["extra_info"]["received_value"], json!(["1"]));

    let body = error_of(json!({"1": empty(json!(0)), "2": save(json!(["1", 5]))})).await;
    assert_eq!(body["node_errors"]["2"]["errors"][0]["details"], "tuple index out of range");
    assert_eq!(body["error"]["details"], "Exception when validating node: tuple index out of range");

    let body = error_of(json!({"1": {"inputs": {}}})).await;
    assert_eq!(body["error"]["message"], "Cannot execute because a node is missing the class_type property.");

    let body = error_of(json!({"1": {"class_type": "PreviewAny"}})).await;
    assert_eq!(body["node_errors"]["1"]["errors"][0]["details"], "'inputs'");

    let long = json!({"class_type": "KSampler", "inputs": {"sampler_name": "nope"}});
    let latent = json!({"class_type": "VAEDecode", "inputs": {"samples": ["1", 0]}});
    let body = error_of(json!({"1": long, "2": latent, "3": save(json!(["2", 0]))})).await;
    let errors = body["node_errors"]["1"]["errors"].as_array().unwrap();
    let error = errors.iter().find(|error| error["type"] == "value_not_in_list").unwrap();
    assert_eq!(error["details"], "sampler_name: 'nope' not in (list of length 42)");
    assert_eq!(error["extra_info"]["input_config"], Value::Null);
    assert_eq!(errors.len(), 10, "{errors:?}");
}
