//! Giving the GPU back to whoever sits at it, and leaving in good order.

use serde::{Deserialize, Serialize};

/// What whoever sits here says of lending this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LendWord {
    /// Lend it, as far as its configuration allows.
    On,
    /// Give it back; what is nearly done may finish.
    Off,
    /// Give it back at once.
    Now,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LendRequest {
    pub say: LendWord,
    /// Until when that holds, then the other way round: `18:30`, `2h`, `2026-11-26 18:30`, or RFC 3339. `None`: until
    /// something else is said.
    pub until: Option<String>,
}

/// How this machine stands toward others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LendState {
    /// Others may have it.
    Lent,
    /// Lent, and not at this hour.
    OutsideHours,
    /// Nobody gets anything new, whoever sits here included.
    Draining,
    /// Others' work is being stopped, or memory let go.
    GivingBack,
    /// It is whoever sits here who has it.
    Back,
    /// This node renders for nobody: it is in no pool, or has no role for that.
    NotARenderer,
}

/// How this machine is lent, who has it, and how giving it back goes or went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LendReply {
    pub say: LendWord,
    pub until_ms: Option<u64>,
    /// On the wall here: `2026-11-26 18:30`.
    pub until: Option<String>,
    pub state: LendState,
    /// The same in a sentence, in the asker's language.
    pub words: String,
    /// Longest that others' work may take to finish after `off`, in seconds.
    pub finish_s: u64,
    /// What runs for other machines.
    pub running: Vec<LentTaskView>,
    /// Each ComfyUI, while the GPU is wanted back.
    pub slots: Vec<SlotBackView>,
    /// The last time since the daemon started.
    pub last: Option<GivenBackView>,
}

/// One task of another machine. Whose it is beyond its studio is not this machine's to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LentTaskView {
    pub studio: Option<String>,
    pub comfyui: String,
    pub step: u32,
    pub max: u32,
    /// Seconds it still needs, where that is known.
    pub left_s: Option<u64>,
    /// It was told to stop, and has not yet.
    pub stopping: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotBackState {
    /// What runs for others may finish.
    Finishing,
    /// What runs for others was told to stop.
    Stopping,
    /// Told to stop, and it does not react.
    Stuck,
    /// The memory was asked back.
    Freeing,
    /// The memory was seen to be free.
    Free,
    /// A prompt of this machine's own runs and keeps what it needs.
    Yours,
    /// The memory was asked back, and is still held.
    Held,
    /// The memory was asked back, and nothing tells whether it is free.
    Unverified,
}

impl SlotBackState {
    /// Nothing more is to be waited for.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Free | Self::Yours | Self::Held | Self::Unverified)
    }
}

/// One ComfyUI on its way back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotBackView {
    pub comfyui: String,
    pub state: SlotBackState,
    pub words: String,
    /// Video memory in use before, where something tells.
    pub vram_before_mib: Option<u32>,
    pub vram_after_mib: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenBackView {
    /// When it was wanted: milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// From then until everything was free, in milliseconds.
    pub took_ms: u64,
    pub slots: Vec<SlotBackView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// Or take work again.
    pub draining: bool,
    /// End the daemon when nothing is left here that somebody waits for.
    #[serde(default)]
    pub exit: bool,
    /// After so many seconds what still runs for others is given back, and results wait no longer.
    pub within_s: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainReply {
    pub draining: bool,
    /// The daemon ends when nothing is left.
    pub exit: bool,
    /// Attempts that have not ended here, this machine's own included.
    pub running: u32,
    /// Results that nobody has taken yet.
    pub results: u32,
    /// Seconds until others' work is given back, where there is a limit.
    pub left_s: Option<u64>,
}
