//! The two machines against each other: scripts, kills at every record, and chance.

mod batches;
mod chaos;
mod deputies;
mod forgetting;
mod growth;
mod hostile;
mod kills;
mod limits;
mod live;
mod owners;
mod parking;
mod policy;
mod projects;
mod scripts;
mod scripts_of_ends;
mod scripts_of_lines;
mod shut_out;
mod wipes;
mod world;
