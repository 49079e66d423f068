//! PURE: in which order the nodes of a prompt run.
//!
//! Nodes whose inputs are there run next; among them an output node first, then one that feeds an output node, then one that feeds such
//! a feeder, else the one that was added first. The order of adding is the real one's too: depth first, last input first.

use std::collections::HashMap;

/// One node as the order sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct Vertex {
    /// Nodes it takes inputs from, in the order of its inputs.
    pub(super) needs: Vec<String>,
    pub(super) is_output: bool,
    /// Its output is still in the execution cache.
    pub(super) is_cached: bool,
}

#[derive(Debug)]
struct Pending {
    id: String,
    waits_for: usize,
    blocks: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Order<'a> {
    vertices: &'a HashMap<String, Vertex>,
    pending: Vec<Pending>,
}

impl<'a> Order<'a> {
    pub(super) fn new(vertices: &'a HashMap<String, Vertex>, outputs: &[String]) -> Self {
        let mut order = Self { vertices, pending: Vec::new() };
        for output in outputs {
            order.add(output);
        }
        order
    }

    fn add(&mut self, id: &str) {
        let mut stack = vec![id.to_owned()];
        let mut links = Vec::new();
        while let Some(id) = stack.pop() {
            let Some(vertex) = self.vertices.get(&id) else { continue };
            if self.at(&id).is_some() {
                continue;
            }
            self.pending.push(Pending { id: id.clone(), waits_for: 0, blocks: Vec::new() });
            for from in &vertex.needs {
                if self.vertices.get(from).is_some_and(|source| !source.is_cached) {
                    stack.push(from.clone());
                    links.push((from.clone(), id.clone()));
                }
            }
        }
        for (from, to) in links {
            let (Some(source), Some(target)) = (self.at(&from), self.at(&to)) else { continue };
            if !self.pending[source].blocks.contains(&to) {
                self.pending[source].blocks.push(to);
                self.pending[target].waits_for += 1;
            }
        }
    }

    fn at(&self, id: &str) -> Option<usize> {
        self.pending.iter().position(|pending| pending.id == id)
    }

    fn is_output(&self, id: &str) -> bool {
        self.vertices.get(id).is_some_and(|vertex| vertex.is_output)
    }

    fn feeds_output(&self, pending: &Pending) -> bool {
        pending.blocks.iter().any(|id| self.is_output(id))
    }

    /// The next node to run; `None` when all are done. Cycles are refused by the validation.
    pub(super) fn next(&mut self) -> Option<String> {
        let ready: Vec<usize> =
            (0..self.pending.len()).filter(|&at| self.pending[at].waits_for == 0).collect();
        let pick =
            |wanted: &dyn Fn(&Pending) -> bool| ready.iter().copied().find(|&at| wanted(&self.pending[at]));
        let chosen = pick(&|p| self.is_output(&p.id))
            .or_else(|| pick(&|p| self.feeds_output(p)))
            .or_else(|| {
                pick(&|p| {
                    p.blocks
                        .iter()
                        .filter_map(|id| self.at(id))
                        .any(|at| self.feeds_output(&self.pending[at]))
                })
            })
            .or_else(|| ready.first().copied())?;
        let done = self.pending.remove(chosen);
        for id in &done.blocks {
            if let Some(at) = self.at(id) {
                self.pending[at].waits_for -= 1;
            }
        }
        Some(done.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_to_image(cached: &[&str]) -> HashMap<String, Vertex> {
        let needs =
            [("3", "4 6 7 5"), ("4", ""), ("5", ""), ("6", "4"), ("7", "4"), ("8", "3 4"), ("9", "8")];
        let vertex = |id: &str, needs: &str| Vertex {
            needs: needs.split_whitespace().map(str::to_owned).collect(),
            is_output: id == "9",
            is_cached: cached.contains(&id),
        };
        needs.into_iter().map(|(id, needs)| (id.to_owned(), vertex(id, needs))).collect()
    }

    fn run(vertices: &HashMap<String, Vertex>) -> Vec<String> {
        let mut order = Order::new(vertices, &["9".to_owned()]);
        std::iter::from_fn(|| order.next()).collect()
    }

    // As run-ksampler-preview-legacy.json and run-ksampler-preview-metadata.json have it. KSampler's inputs come in the order of the
    // recorded request: latent_image, model, negative, positive.
    #[test]
    fn nodes_run_in_the_recorded_order() {
        let mut vertices = text_to_image(&[]);
        vertices.get_mut("3").unwrap().needs = ["5", "4", "7", "6"].map(str::to_owned).to_vec();
        assert_eq!(run(&vertices), ["4", "6", "7", "5", "3", "8", "9"]);
        assert_eq!(run(&text_to_image(&["4", "5", "6", "7"])), ["3", "8", "9"]);
        assert_eq!(run(&text_to_image(&["3", "4", "5", "6", "7", "8", "9"])), ["9"]);
    }
}
