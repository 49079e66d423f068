//! Which inputs of which classes name models, and which name files of the submitter.

/// Loader inputs by name alone: nobody uses these names for anything else.
const MODEL_INPUTS: &[(&str, &str)] = &[
    ("ckpt_name", "checkpoints"),
    ("lora_name", "loras"),
    ("vae_name", "vae"),
    ("unet_name", "diffusion_models"),
    ("clip_name1", "text_encoders"),
    ("clip_name2", "text_encoders"),
    ("clip_name3", "text_encoders"),
    ("clip_name4", "text_encoders"),
    ("control_net_name", "controlnet"),
    ("style_model_name", "style_models"),
    ("gligen_name", "gligen"),
    ("hypernetwork_name", "hypernetworks"),
    ("photomaker_model_name", "photomaker"),
    ("audio_encoder_name", "audio_encoders"),
    ("ipadapter_file", "ipadapter"),
];

/// Inputs whose name is too common: class (or its beginning, with `*`), input, folder.
const MODEL_INPUTS_OF_CLASS: &[(&str, &str, &str)] = &[
    ("CLIPLoader", "clip_name", "text_encoders"),
    ("CLIPLoaderGGUF", "clip_name", "text_encoders"),
    ("CLIPVisionLoader", "clip_name", "clip_vision"),
    ("LTXAVTextEncoderLoader", "text_encoder", "text_encoders"),
    ("UpscaleModelLoader", "model_name", "upscale_models"),
    ("LatentUpscaleModelLoader", "model_name", "latent_upscale_models"),
    ("ModelPatchLoader", "name", "model_patches"),
    ("DiffusersLoader", "model_path", "diffusers"),
    // AnimateDiff-Evolved keeps its motion modules and their LoRAs in folders of its own.
    ("ADE_AnimateDiffLoRALoader", "name", "animatediff_motion_lora"),
    ("ADE_*", "model_name", "animatediff_models"),
    ("AnimateDiff*", "model_name", "animatediff_models"),
    ("SAMLoader", "model_name", "sams"),
    ("INPAINT_LoadInpaintModel", "model_name", "inpaint"),
];

/// File inputs: class (or its beginning, with `*`), input. Anything here must come with the task: what lies in
/// the renderer's own folders is not the submitter's to read.
const FILE_INPUTS: &[(&str, &str)] = &[
    ("LoadImage", "image"),
    ("LoadImageMask", "image"),
    ("LoadImageOutput", "image"),
    ("LoadAudio", "audio"),
    ("LoadAudioPath", "audio"),
    ("LoadVideo", "file"),
    ("LoadLatent", "latent"),
    ("Load3D*", "model_file"),
    ("LoadSRT", "srt"),
    ("VHS_LoadVideo", "video"),
    ("VHS_LoadVideoFFmpeg", "video"),
    ("VHS_LoadAudioUpload", "audio"),
];

/// Names that folders had before; ComfyUI still accepts them.
const FOLDER_ALIASES: &[(&str, &str)] = &[("unet", "diffusion_models"), ("clip", "text_encoders")];

/// The folder in which an input's model lies, when the input names a model.
pub fn input_folder(class: &str, input: &str) -> Option<&'static str> {
    let of_class = MODEL_INPUTS_OF_CLASS
        .iter()
        .find(|(pattern, name, _)| *name == input && matches_class(pattern, class))
        .map(|(_, _, folder)| *folder);
    of_class.or_else(|| MODEL_INPUTS.iter().find(|(name, _)| *name == input).map(|(_, folder)| *folder))
}

/// Whether an input names a file that must be uploaded first.
pub fn is_file_input(class: &str, input: &str) -> bool {
    FILE_INPUTS.iter().any(|(pattern, name)| *name == input && matches_class(pattern, class))
}

/// The folder's present name.
pub fn folder_alias(folder: &str) -> &str {
    FOLDER_ALIASES.iter().find(|(old, _)| *old == folder).map_or(folder, |(_, new)| new)
}

fn matches_class(pattern: &str, class: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == class, |beginning| class.starts_with(beginning))
}
