//! A mesh of real processes: daemons and the ComfyUIs beside them, each with its own directory, set up and asked
//! through the command line, killed and restarted by pid.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::process::Child;

use crate::eventually::{PATIENCE, eventually};
use crate::port::Port;
use crate::program::Programs;
use crate::proxy::Proxy;

/// The checkpoint that simulated ComfyUIs hold unless told otherwise.
pub const CHECKPOINT: &str = "base.safetensors";

/// The ComfyUI beside a node.
#[derive(Clone, Debug)]
pub enum Comfy {
    /// None: the node only submits.
    Absent,
    /// A simulated one, started with these extra arguments.
    Simulated(Vec<String>),
    /// One that somebody else runs.
    At(String),
}

impl Comfy {
    /// A simulated one with extra arguments.
    pub fn simulated(arguments: &[&str]) -> Self {
        Self::Simulated(arguments.iter().map(ToString::to_string).collect())
    }
}

/// What a command of the command line did.
#[derive(Clone, Debug)]
pub struct Answer {
    pub code: i32,
    /// The last line of standard output, as `--json` gives it; null when there is none.
    pub json: Value,
    pub stdout: String,
    pub stderr: String,
}

/// One machine of the mesh.
#[derive(Debug)]
pub struct Node {
    pub name: String,
    pub dir: PathBuf,
    daemon: Option<Child>,
    comfy: Option<ComfyProcess>,
    /// Held as long as the node is there, so that a restarted one is where it was.
    listen: Port,
    porch: Port,
    wire: Option<Proxy>,
}

#[derive(Debug)]
struct ComfyProcess {
    arguments: Vec<String>,
    url: String,
    port: Port,
    child: Child,
}

impl Node {
    /// The daemon's log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("daemon.log")).unwrap_or_default()
    }

    /// The wire through which the others reach this node, when it was added with one.
    pub fn wire(&self) -> Option<&Proxy> {
        self.wire.as_ref()
    }

    /// The URL of the ComfyUI beside this node, if a simulated one runs.
    pub fn comfy_url(&self) -> Option<&str> {
        self.comfy.as_ref().map(|comfy| comfy.url.as_str())
    }

    /// Directory with the `input`, `output` and `temp` of this node's simulated ComfyUI.
    pub fn comfy_dir(&self) -> PathBuf {
        self.dir.join("comfyui")
    }

    /// What this node's simulated ComfyUI ran: the JSON lines of its log.
    pub fn comfy_log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir.join("comfyui.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Whether the daemon stands still.
    pub fn is_halted(&self) -> bool {
        let status = self.pid().and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok());
        status.is_some_and(|status| status.lines().any(|line| line.starts_with("State:\tT")))
    }

    /// Beside the data directory, which is the daemon's own.
    fn halt_file(&self) -> PathBuf {
        self.dir.with_extension("halt")
    }

    /// Lets a daemon that stands still go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn go_on(&self) -> Result<()> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.name))?;
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid)?).context("a process id")?;
        Ok(rustix::process::kill_process(pid, rustix::process::Signal::CONT)?)
    }

    /// Where the daemon's ComfyUI gateway is.
    pub fn gateway(&self) -> Option<String> {
        let told: Value = serde_json::from_slice(&std::fs::read(self.dir.join("api.json")).ok()?).ok()?;
        told["gateway"].as_str().map(str::to_owned)
    }

    /// The process id of the daemon while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().and_then(Child::id)
    }
}

/// A running mesh. Dropping it kills what it started.
#[derive(Debug)]
pub struct Cluster {
    programs: Programs,
    dir: PathBuf,
    nodes: BTreeMap<String, Node>,
    /// Daemons stand still where [`Cluster::halt_at`] says.
    haltable: bool,
}

impl Cluster {
    /// An empty mesh whose nodes live in directories below `dir`.
    pub fn new(programs: Programs, dir: &Path) -> Self {
        Self { programs, dir: dir.to_owned(), nodes: BTreeMap::new(), haltable: false }
    }

    /// The same, with daemons that can be told to stand still at a record while they run.
    #[must_use]
    pub fn haltable(self) -> Self {
        Self { haltable: true, ..self }
    }

    /// Lets a daemon stand still (as of `kill -STOP`) at its next record of a name, just `before` or `after` it is
    /// written; `None` takes that back.
    ///
    /// # Errors
    /// When that cannot be written where the daemon looks for it.
    pub fn halt_at(&self, name: &str, point: Option<(&str, &str)>) -> Result<()> {
        let file = self.node(name).halt_file();
        match point {
            Some((record, when)) => Ok(std::fs::write(file, format!("{record}:{when}"))?),
            None => {
                drop(std::fs::remove_file(file));
                Ok(())
            }
        }
    }

    pub fn node(&self, name: &str) -> &Node {
        self.nodes.get(name).unwrap_or_else(|| panic!("the mesh has no node {name}"))
    }

    fn node_mut(&mut self, name: &str) -> &mut Node {
        self.nodes.get_mut(name).unwrap_or_else(|| panic!("the mesh has no node {name}"))
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    pub fn names(&self) -> Vec<String> {
        self.nodes.keys().cloned().collect()
    }

    /// Starts a node and the ComfyUI beside it.
    ///
    /// # Errors
    /// When either does not come up.
    pub async fn add(&mut self, name: &str, comfy: Comfy) -> Result<()> {
        self.add_node(name, comfy, false, "").await
    }

    /// Starts a node that the others reach only through a wire that can be cut.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn add_wired(&mut self, name: &str, comfy: Comfy) -> Result<()> {
        self.add_node(name, comfy, true, "").await
    }

    /// Starts a node with more lines in its configuration (TOML, below the tables that the cluster writes).
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn add_with(&mut self, name: &str, comfy: Comfy, config: &str) -> Result<()> {
        self.add_node(name, comfy, false, config).await
    }

    /// Starts a node that is in no pool yet with its porch at the port after its main one, where it is looked for by
    /// whoever knows no advert of it.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn add_with_porch_beside(&mut self, name: &str, comfy: Comfy) -> Result<()> {
        self.add(name, comfy).await?;
        self.kill(name).await?;
        let (listen, porch) = Port::pair()?;
        let node = self.node_mut(name);
        (node.listen, node.porch) = (listen, porch);
        self.start(name).await
    }

    async fn add_node(&mut self, name: &str, comfy: Comfy, wired: bool, more: &str) -> Result<()> {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let (comfy, url) = match comfy {
            Comfy::Absent => (None, None),
            Comfy::At(url) => (None, Some(url)),
            Comfy::Simulated(arguments) => {
                let process = self.start_comfy(&dir, arguments, Port::any()?).await?;
                let url = process.url.clone();
                (Some(process), Some(url))
            }
        };
        let unset = SocketAddr::from(([127, 0, 0, 1], 9));
        let wire = if wired { Some(Proxy::start(unset).await?) } else { None };
        let mut config = String::from("[network]\nmdns = false\n");
        if let Some(wire) = &wire {
            config += &format!(
                "external = [\"/ip4/127.0.0.1/tcp/{}\"]\nannounce_listen = false\n",
                wire.address().port()
            );
        }
        if let Some(url) = url {
            config += &format!("\n[[comfyui]]\nurl = \"{url}\"\n");
        }
        config += more;
        std::fs::write(dir.join("scenemesh.toml"), config)?;
        let (listen, porch) = (Port::any()?, Port::any()?);
        if let Some(wire) = &wire {
            wire.aim(listen.address());
        }
        let node = Node { name: name.to_owned(), dir, daemon: None, comfy, listen, porch, wire };
        self.nodes.insert(name.to_owned(), node);
        self.start(name).await
    }

    async fn start_comfy(&self, dir: &Path, arguments: Vec<String>, port: Port) -> Result<ComfyProcess> {
        let ready = dir.join("comfyui.url");
        drop(std::fs::remove_file(&ready));
        let mut all = vec!["--listen".to_owned(), port.address().to_string()];
        for (flag, path) in
            [("--data", "comfyui"), ("--log", "comfyui.jsonl"), ("--ready-file", "comfyui.url")]
        {
            all.extend([flag.to_owned(), dir.join(path).display().to_string()]);
        }
        all.extend(arguments.iter().cloned());
        if !arguments.iter().any(|argument| argument == "--model") {
            all.extend(["--model".to_owned(), format!("checkpoints/{CHECKPOINT}")]);
        }
        let child = self.programs.start("comfyui", &all, &dir.join("comfyui.log"))?;
        let url = eventually("the simulated ComfyUI listens", || async {
            Ok(std::fs::read_to_string(&ready).ok().filter(|url| url.ends_with('\n')).ok_or("no URL yet"))
        })
        .await?;
        Ok(ComfyProcess { arguments, url: url.trim().to_owned(), port, child })
    }

    /// Starts a node's daemon, again if it ran before, and waits until it answers.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn start(&mut self, name: &str) -> Result<()> {
        let mut programs = self.programs.clone();
        if self.haltable {
            let file = self.node(name).halt_file();
            programs = programs.with("SCENEMESH_HALT", &format!("@{}", file.display()));
        }
        self.start_with(name, &programs).await
    }

    /// The same with the daemon of this build, whatever the others are.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn start_upgraded(&mut self, name: &str) -> Result<()> {
        let programs = self.programs.clone().with_daemon(None);
        self.start_with(name, &programs).await
    }

    /// The same, standing still (as of `kill -STOP`) just before or after it writes its first record of a name.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn start_halting(&mut self, name: &str, record: &str, when: &str) -> Result<()> {
        let programs = self.programs.clone().with("SCENEMESH_HALT", &format!("{record}:{when}"));
        self.start_with(name, &programs).await
    }

    async fn start_with(&mut self, name: &str, programs: &Programs) -> Result<()> {
        let node = self.node_mut(name);
        ensure!(node.daemon.is_none(), "{name} runs already");
        drop(std::fs::remove_file(node.dir.join("api.json")));
        let arguments = [
            "--data-dir".to_owned(),
            node.dir.display().to_string(),
            "--listen".to_owned(),
            node.listen.multiaddr(),
            "--porch".to_owned(),
            node.porch.multiaddr(),
            "--api".to_owned(),
            "127.0.0.1:0".to_owned(),
        ];
        node.daemon = Some(programs.start("scenemeshd", &arguments, &node.dir.join("daemon.log"))?);
        self.answering(name).await.map(drop)
    }

    async fn answering(&mut self, name: &str) -> Result<Value> {
        let exited = self.node_mut(name).daemon.as_mut().map(|child| child.try_wait());
        if let Some(Ok(Some(code))) = exited {
            bail!("{name} ended with {code}:\n{}", self.node(name).log());
        }
        eventually(&format!("{name} answers"), || async {
            let answer = self.cli(name, &["status"]).await?;
            Ok(if answer.code == 0 { Ok(answer.json) } else { Err((answer.stderr, self.node(name).log())) })
        })
        .await
    }

    /// Runs one command of the command line against a node, with `--json`.
    ///
    /// # Errors
    /// When the program cannot be run at all.
    pub async fn cli(&self, node: &str, arguments: &[&str]) -> Result<Answer> {
        let dir = &self.node(node).dir;
        let output = self
            .programs
            .command("scenemesh")
            .args(["--data-dir", &dir.display().to_string(), "--json"])
            .args(arguments)
            .output()
            .await
            .context("running the command line")?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let json = stdout.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(Answer { code: output.status.code().unwrap_or(-1), json, stdout, stderr })
    }

    /// Runs a command that must succeed and gives its JSON.
    ///
    /// # Errors
    /// When it does not exit with 0.
    pub async fn ok(&self, node: &str, arguments: &[&str]) -> Result<Value> {
        let answer = self.cli(node, arguments).await?;
        if answer.code != 0 {
            bail!(
                "scenemesh {} on {node} gave {}:\n{}{}\n--- log\n{}",
                arguments.join(" "),
                answer.code,
                answer.stdout,
                answer.stderr,
                tail(&self.node(node).log(), 40)
            );
        }
        Ok(answer.json)
    }

    /// Founds a pool on `founder` as `studio`.
    ///
    /// # Errors
    /// When `init` fails.
    pub async fn found(&mut self, founder: &str, pool: &str, studio: &str) -> Result<()> {
        self.ok(founder, &["init", "--pool", pool, "--studio", studio, "--name", founder, "--no-passphrase"])
            .await?;
        self.listens(founder).await
    }

    /// Invites `joiner` from `inviter`, into its studio or as the first node of a new one.
    ///
    /// # Errors
    /// When `invite` or `join` fails.
    pub async fn admit(&mut self, inviter: &str, joiner: &str, new_studio: Option<&str>) -> Result<()> {
        let mut invite = vec!["invite"];
        invite.extend(new_studio.map(|studio| ["--new-studio", studio]).into_iter().flatten());
        let code = self.ok(inviter, &invite).await?;
        let code = code["code"].as_str().context("an invite has a code")?.to_owned();
        let mut join = vec!["join", &code, "--name", joiner, "--yes"];
        if new_studio.is_some() {
            join.push("--no-passphrase");
        }
        self.ok(joiner, &join).await?;
        self.listens(joiner).await
    }

    /// Waits until a node listens for members and on its porch.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn listens(&self, name: &str) -> Result<()> {
        eventually(&format!("{name} listens"), || async {
            let status = self.ok(name, &["status"]).await?;
            let both = status["listening"][0].is_string() && status["porch"][0].is_string();
            Ok(if both { Ok(()) } else { Err(status) })
        })
        .await
    }

    /// Waits until every running node sees every other running node as up.
    ///
    /// # Errors
    /// When they do not find each other.
    pub async fn all_up(&self) -> Result<()> {
        let running: Vec<_> =
            self.nodes.values().filter(|node| node.daemon.is_some()).map(|node| node.name.as_str()).collect();
        self.all_running_up(&running).await
    }

    /// Waits until each of these nodes sees each other of them as up.
    ///
    /// # Errors
    /// When they do not find each other.
    pub async fn all_running_up(&self, running: &[&str]) -> Result<()> {
        for node in running {
            let wanted: Vec<_> = running.iter().filter(|name| *name != node).collect();
            eventually(&format!("{node} sees {wanted:?} up"), || async {
                let peers = self.ok(node, &["peers"]).await?;
                let up = |name: &str| {
                    peers["peers"]
                        .as_array()
                        .is_some_and(|list| list.iter().any(|p| p["name"] == name && p["link"] == "up"))
                };
                Ok(if wanted.iter().all(|name| up(name)) { Ok(()) } else { Err(peers) })
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until `viewer` holds an advert of `of`, first-hand or not.
    ///
    /// # Errors
    /// When none arrives.
    pub async fn advert_seen(&self, viewer: &str, of: &str) -> Result<()> {
        eventually(&format!("{viewer} holds an advert of {of}"), || async {
            let peers = self.ok(viewer, &["peers"]).await?;
            let mut list = peers["peers"].as_array().into_iter().flatten();
            let held = list.any(|peer| peer["name"] == of && !peer["availability"].is_null());
            Ok(if held { Ok(()) } else { Err(peers) })
        })
        .await
    }

    /// Waits until a job on `node` satisfies `good`, and gives its JSON.
    ///
    /// # Errors
    /// When it does not.
    pub async fn job_until(
        &self,
        node: &str,
        job: &str,
        what: &str,
        good: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        eventually(what, || async {
            let shown = self.ok(node, &["show", job]).await?;
            Ok(if good(&shown) { Ok(shown) } else { Err((shown, self.last_words())) })
        })
        .await
    }

    /// Kills a node's daemon as a power cut would.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self, name: &str) -> Result<()> {
        let mut child = self.node_mut(name).daemon.take().with_context(|| format!("{name} does not run"))?;
        child.kill().await.with_context(|| format!("killing {name}"))
    }

    /// Waits until a node's daemon ends by itself, and gives its exit status.
    ///
    /// # Errors
    /// When it does not run, or does not end within the usual patience.
    pub async fn ended(&mut self, name: &str) -> Result<i32> {
        let mut child = self.node_mut(name).daemon.take().with_context(|| format!("{name} does not run"))?;
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
        let status = ended.with_context(|| format!("{name} does not end"))??;
        status.code().with_context(|| format!("{name} was ended by a signal"))
    }

    /// Kills the ComfyUI beside a node.
    ///
    /// # Errors
    /// When there is none.
    pub async fn kill_comfy(&mut self, name: &str) -> Result<()> {
        let comfy =
            self.node_mut(name).comfy.as_mut().with_context(|| format!("{name} has no ComfyUI of ours"))?;
        comfy.child.kill().await.with_context(|| format!("killing the ComfyUI of {name}"))
    }

    /// Starts a killed ComfyUI where it was.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart_comfy(&mut self, name: &str) -> Result<()> {
        self.restart_comfy_as(name, None).await
    }

    /// Starts a killed ComfyUI where it was, with other arguments.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart_comfy_with(&mut self, name: &str, arguments: &[&str]) -> Result<()> {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        self.restart_comfy_as(name, Some(arguments)).await
    }

    async fn restart_comfy_as(&mut self, name: &str, arguments: Option<Vec<String>>) -> Result<()> {
        let node = self.node_mut(name);
        let old = node.comfy.take().with_context(|| format!("{name} has no ComfyUI of ours"))?;
        let dir = node.dir.clone();
        let process = self.start_comfy(&dir, arguments.unwrap_or(old.arguments), old.port).await?;
        self.node_mut(name).comfy = Some(process);
        Ok(())
    }

    /// The last lines of every node's log, for failures.
    pub fn last_words(&self) -> String {
        self.nodes.values().map(|node| format!("--- {}\n{}\n", node.name, tail(&node.log(), 12))).collect()
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The socket address in `/ip4/A/tcp/P`.
///
/// # Errors
/// When it is another kind of address.
pub fn socket_address(multiaddr: &str) -> Result<SocketAddr> {
    let mut parts = multiaddr.split('/');
    let (_, _, ip, _, port) = (parts.next(), parts.next(), parts.next(), parts.next(), parts.next());
    let (Some(ip), Some(port)) = (ip, port) else { bail!("{multiaddr} is not /ip4/…/tcp/…") };
    Ok(SocketAddr::new(ip.parse()?, port.parse()?))
}
