//! PURE: how the tasks of one job differ, and which of them build on others.
//!
//! A job's tasks come in stages, one after the other. In each, the last varied input changes fastest, then the ones
//! before it; for each combination there are `count` seeds. A stage that takes results of an earlier one has all of
//! that for each task there, or once for all of them together.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use scenemesh_protocol::codec::{Decode, Encode};
use scenemesh_protocol::task::OnSuspect;
use serde_json::Value;

use super::record::Submission;
use super::renderer::INPUTS_LIMIT;
use super::{COUNT_LIMIT, STAGES_LIMIT};
use crate::executor::graph::{Graph, GraphError};

/// A job whose tasks differ in more than their seeds, or build on each other.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Batch {
    pub submission: Submission,
    /// They cover the tasks in the order of their indexes; none at all in a plain job.
    pub stages: Vec<Stage>,
    pub on_suspect: OnSuspect,
}

/// Longest label and person of a job of another node, in bytes.
const WORDS: usize = 1024;

impl Batch {
    /// Whether a batch that another node made has the shape that a planned one has: its tasks are counted and named once,
    /// its stages cover them in order, and each takes results of earlier ones only.
    ///
    /// # Errors
    /// A sentence.
    pub fn check(&self) -> Result<(), String> {
        let Submission { label, person, recipes, tasks, .. } = &self.submission;
        let count = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
        if !(1..=COUNT_LIMIT).contains(&count) || label.len().max(person.len()) > WORDS {
            return Err("it has no task, too many, or a label without end".into());
        }
        let names: BTreeSet<_> = tasks.iter().map(|plan| plan.task).collect();
        if names.len() != tasks.len() || tasks.iter().any(|plan| usize::from(plan.recipe) >= recipes.len()) {
            return Err("its tasks share a name, or are made of nothing".into());
        }
        if self.stages.len() > STAGES_LIMIT || recipes.iter().any(|recipe| recipe.inputs.len() > INPUTS_LIMIT)
        {
            return Err("it has too many stages or inputs".into());
        }
        let mut first = 0_u32;
        for (at, stage) in self.stages.iter().enumerate() {
            let earlier = |feed: &Feed| usize::from(feed.stage) < at;
            if stage.first != first || stage.tasks == 0 || !stage.feeds.iter().all(earlier) {
                return Err("its stages do not follow one another".into());
            }
            first = first.saturating_add(stage.tasks);
        }
        let whole = self.stages.is_empty() || first == count;
        if whole { Ok(()) } else { Err("its stages are not of its tasks".into()) }
    }
}

impl From<Submission> for Batch {
    fn from(submission: Submission) -> Self {
        Self { submission, stages: Vec::new(), on_suspect: OnSuspect::Keep }
    }
}

/// Tasks of one workflow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Stage {
    /// Index of its first task within the job.
    pub first: u32,
    pub tasks: u32,
    /// Seeds for each combination of varied inputs.
    pub count: u32,
    pub varied: Vec<Varied>,
    pub feeds: Vec<Feed>,
}

/// An input that is another from task to task.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Varied {
    /// `NODE.INPUT`.
    pub path: String,
    /// Each as JSON.
    pub values: Vec<String>,
}

impl fmt::Debug for Varied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Varied({}, {} values)", self.path, self.values.len())
    }
}

/// A result of an earlier stage that is an input here.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Feed {
    /// What the workflow calls the input; with `{i}` in it all tasks of that stage are taken, each under its number.
    pub name: String,
    /// Index of the stage, an earlier one.
    pub stage: u16,
    /// Id of the graph's node whose file it is.
    pub node: String,
    /// Which of that node's files, from 0.
    pub file: u16,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Feed({}.{}#{})", self.stage, self.node, self.file)
    }
}

/// Where the number of a task stands in the name of a [`Feed`] that gathers.
pub const GATHERED: &str = "{i}";

impl Feed {
    pub fn gathers(&self) -> bool {
        self.name.contains(GATHERED)
    }

    /// Its name for the task with this place in its stage.
    pub fn name_of(&self, place: u32) -> String {
        self.name.replace(GATHERED, &place.to_string())
    }
}

impl Stage {
    pub fn has(&self, index: u32) -> bool {
        index.checked_sub(self.first).is_some_and(|place| place < self.tasks)
    }

    /// Tasks for each task of a stage that it builds on; all of them when it builds on none.
    pub fn combinations(&self) -> u64 {
        let values = self.varied.iter().map(|varied| varied.values.len() as u64);
        values.fold(u64::from(self.count), u64::saturating_mul)
    }

    /// Which seed, and which value of each varied input, the task with this index has.
    pub fn digits(&self, index: u32) -> (u64, Vec<usize>) {
        let place = u64::from(index.saturating_sub(self.first)) % self.combinations().max(1);
        let count = u64::from(self.count.max(1));
        let mut rest = place / count;
        let mut digits = Vec::with_capacity(self.varied.len());
        for varied in self.varied.iter().rev() {
            let many = varied.values.len().max(1) as u64;
            digits.push(usize::try_from(rest % many).unwrap_or_default());
            rest /= many;
        }
        digits.reverse();
        (place % count, digits)
    }

    /// The same with the values themselves: each path and its value as JSON.
    pub fn choice(&self, index: u32) -> (u64, Vec<(&str, &str)>) {
        let (seed, digits) = self.digits(index);
        let values = self.varied.iter().zip(digits);
        let values =
            values.filter_map(|(varied, at)| Some((varied.path.as_str(), varied.values.get(at)?.as_str())));
        (seed, values.collect())
    }

    /// Sets what is varied, for the task with this index.
    ///
    /// # Errors
    /// When the graph has no such input.
    pub fn vary(&self, graph: &mut Graph, index: u32) -> Result<(), GraphError> {
        for (path, value) in self.choice(index).1 {
            // What does not read as JSON was never accepted.
            graph.set(path, serde_json::from_str(value).unwrap_or(Value::Null))?;
        }
        Ok(())
    }

    /// The same in a graph's bytes.
    ///
    /// # Errors
    /// Never for a graph that was accepted at submission; a sentence otherwise.
    pub fn set_in(&self, bytes: &mut Vec<u8>, index: u32) -> Result<(), String> {
        if self.varied.is_empty() {
            return Ok(());
        }
        let mut graph = Graph::parse(bytes).map_err(|error| error.to_string())?;
        self.vary(&mut graph, index).map_err(|error| error.to_string())?;
        *bytes = graph.to_bytes();
        Ok(())
    }

    /// Indexes of this stage's tasks that take a result of the task with this place in the stage `of`.
    pub fn takers(&self, stages: &[Self], of: usize, place: u32) -> Range<u32> {
        let mine = self.first..self.first.saturating_add(self.tasks);
        let mut feeds = self.feeds.iter().filter(|feed| usize::from(feed.stage) == of).peekable();
        if feeds.peek().is_none() {
            return 0..0;
        }
        if stages.get(of).is_some_and(|stage| stage.tasks == 1) || feeds.any(Feed::gathers) {
            return mine;
        }
        let each = u32::try_from(self.combinations()).unwrap_or(u32::MAX);
        let from = self.first.saturating_add(place.saturating_mul(each));
        from.min(mine.end)..from.saturating_add(each).min(mine.end)
    }

    /// Which tasks' results the task with this index takes, and under which names.
    pub fn sources<'a>(&'a self, stages: &'a [Self], index: u32) -> impl Iterator<Item = Source<'a>> {
        let place = index.saturating_sub(self.first);
        self.feeds.iter().flat_map(move |feed| {
            let from = stages.get(usize::from(feed.stage));
            let all = from.map_or(0, |from| from.tasks);
            let one = u32::try_from(u64::from(place) / self.combinations().max(1)).unwrap_or(u32::MAX);
            // A stage of one task serves every task that builds on it.
            let one = if all == 1 { 0 } else { one };
            let places = if feed.gathers() { 0..all } else { one..one.saturating_add(1).min(all) };
            let first = from.map_or(0, |from| from.first);
            places.map(move |place| Source { index: first + place, name: feed.name_of(place), feed })
        })
    }
}

/// One file that a task takes from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source<'a> {
    /// Index of the other task within the job.
    pub index: u32,
    /// What the workflow calls it.
    pub name: String,
    pub feed: &'a Feed,
}

/// The stage that a task belongs to.
pub fn stage_of(stages: &[Stage], index: u32) -> Option<&Stage> {
    stages.iter().find(|stage| stage.has(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varied(path: &str, values: &[&str]) -> Varied {
        Varied { path: path.into(), values: values.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn the_last_varied_input_changes_fastest_and_seeds_faster_still() {
        let varied = vec![varied("3.cfg", &["6", "7"]), varied("6.text", &["\"a\"", "\"b\"", "\"c\""])];
        let stage = Stage { first: 4, tasks: 12, count: 2, varied, feeds: Vec::new() };
        assert_eq!(stage.combinations(), 12);
        let told = |index| {
            let (seed, values) = stage.choice(index);
            (seed, values[0].1.to_owned(), values[1].1.to_owned())
        };
        let expected = [(0, "6", "\"a\""), (1, "6", "\"a\""), (0, "6", "\"b\""), (1, "6", "\"b\"")];
        for (index, (seed, cfg, text)) in (4..).zip(expected) {
            assert_eq!(told(index), (seed, cfg.to_owned(), text.to_owned()), "{index}");
        }
        assert_eq!(told(15), (1, "7".into(), "\"c\"".into()));
        assert!(stage.has(4) && stage.has(15) && !stage.has(3) && !stage.has(16));
    }

    #[test]
    fn a_stage_takes_results_one_by_one_or_all_together() {
        let feed = |name: &str| Feed { name: name.into(), stage: 0, node: "9".into(), file: 0 };
        let draw = Stage { first: 0, tasks: 3, count: 3, ..Stage::default() };
        let each = Stage { first: 3, tasks: 6, count: 2, feeds: vec![feed("a.png")], ..Stage::default() };
        let all = Stage { first: 9, tasks: 1, count: 1, feeds: vec![feed("f{i}.png")], ..Stage::default() };
        let stages = [draw, each, all];
        let sources = |index| {
            let stage = stage_of(&stages, index).unwrap();
            stage.sources(&stages, index).map(|it| (it.index, it.name)).collect::<Vec<_>>()
        };
        assert_eq!(sources(0), []);
        let each = [0, 0, 1, 1, 2, 2];
        for (index, from) in (3..).zip(each) {
            assert_eq!(sources(index), [(from, "a.png".to_owned())], "{index}");
        }
        let gathered = ["f0.png", "f1.png", "f2.png"].map(str::to_owned);
        assert_eq!(sources(9), (0..3).zip(gathered).collect::<Vec<_>>());
        for place in 0..3 {
            let takers: Vec<u32> = (0..10).filter(|at| sources(*at).iter().any(|it| it.0 == place)).collect();
            let told = stages.iter().flat_map(|stage| stage.takers(&stages, 0, place));
            assert_eq!(told.collect::<Vec<_>>(), takers, "both ways round");
        }
    }

    #[test]
    fn a_batch_of_another_node_is_looked_at_before_it_is_believed() {
        use scenemesh_protocol::ids::{JobId, TaskId};
        use scenemesh_protocol::task::{Class, Reach, Shape};

        use crate::scheduler::record::{Recipe, TaskPlan};
        let recipe = Recipe {
            graph: Vec::new(),
            extra_data: Vec::new(),
            inputs: Vec::new(),
            shape: Shape::default(),
            previews: false,
            time_limit_ms: 1,
        };
        let plan = |task: u8| TaskPlan { task: TaskId::from_bytes([task; 16]), recipe: 0, add_to_seeds: 0 };
        let submission = Submission {
            job: JobId::from_bytes([1; 16]),
            label: String::new(),
            person: String::new(),
            class: Class::Normal,
            reach: Reach::Studio,
            project: None,
            created_ms: 1,
            recipes: vec![recipe],
            tasks: (1..=3).map(plan).collect(),
        };
        let feed = Feed { name: "f{i}.png".into(), stage: 0, node: "9".into(), file: 0 };
        let stages = vec![
            Stage { first: 0, tasks: 2, count: 2, ..Stage::default() },
            Stage { first: 2, tasks: 1, count: 1, feeds: vec![feed.clone()], ..Stage::default() },
        ];
        let sound = Batch { submission, stages, on_suspect: OnSuspect::Keep };
        assert_eq!(sound.check(), Ok(()));
        assert_eq!(Batch { stages: Vec::new(), ..sound.clone() }.check(), Ok(()));
        type Bend = fn(&mut Batch);
        let bent: [Bend; 9] = [
            |batch| batch.submission.tasks.clear(),
            |batch| batch.submission.label = "x".repeat(WORDS + 1),
            |batch| batch.submission.tasks[1].task = batch.submission.tasks[0].task,
            |batch| batch.submission.tasks[1].recipe = 1,
            |batch| batch.stages[0].tasks = u32::MAX,
            |batch| batch.stages[1].first = 1_000_000,
            |batch| batch.stages[1].feeds[0].stage = 1,
            |batch| batch.stages[0].tasks = 0,
            |batch| drop(batch.stages.pop()),
        ];
        for (at, bend) in bent.into_iter().enumerate() {
            let mut batch = sound.clone();
            bend(&mut batch);
            assert!(batch.check().is_err(), "{at}");
        }
    }

    #[test]
    fn nonsense_from_a_journal_is_no_panic() {
        let feeds = vec![Feed { name: "a".into(), stage: 9, node: String::new(), file: 0 }];
        let odd = Stage { first: 7, tasks: u32::MAX, count: 0, varied: vec![varied("x", &[])], feeds };
        assert_eq!(odd.choice(3), (0, Vec::new()));
        assert_eq!(odd.sources(std::slice::from_ref(&odd), 8).count(), 0);
        assert_eq!(odd.takers(&[], 0, 3), 0..0);
    }
}
