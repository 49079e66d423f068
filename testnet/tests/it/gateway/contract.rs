//! Checks of the contract suite that hold for a gateway as they do for a ComfyUI.

use super::clients::defined;
use super::tell;
use crate::comfyui_contract::judged_alike::prompts_are_judged_alike;
use crate::comfyui_contract::node_definitions;
use crate::comfyui_contract::refusals::more_prompt_errors;

#[test]
fn definitions_are_told_and_prompts_are_refused_as_comfyui_does_it() {
    tell(async |mesh| {
        let gateway = defined(mesh, &[], "").await?;
        node_definitions(&gateway).await;
        more_prompt_errors(&gateway).await;
        prompts_are_judged_alike(&gateway).await;
        Ok(())
    });
}
