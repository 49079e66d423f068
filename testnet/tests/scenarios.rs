//! The scenarios, each over real processes in a directory of its own.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps in vain, its helpers too")]

use std::future::Future;
use std::pin::Pin;

use scenemesh_testnet::cluster::Cluster;
use scenemesh_testnet::program::Programs;
use scenemesh_testnet::scenarios::{
    comfyui_killed, deputy, first_render, link_cut, membership, refusal, renderer_killed, requester_killed,
    solo, trust, two_requesters,
};
use scenemesh_testnet::story;

type Story<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

fn tell(story: impl for<'a> FnOnce(&'a mut Cluster, &'a std::path::Path) -> Story<'a>) {
    story::tell(Programs::at(env!("CARGO_BIN_EXE_testnet")), async |mesh, dir| story(mesh, dir).await)
        .unwrap();
}

#[test]
fn first_render() {
    tell(|mesh, dir| Box::pin(first_render::run(mesh, dir)));
}

#[test]
fn renderer_killed_while_sampling() {
    tell(|mesh, dir| Box::pin(renderer_killed::run(mesh, dir)));
}

#[test]
fn comfyui_killed_while_sampling() {
    tell(|mesh, dir| Box::pin(comfyui_killed::run(mesh, dir)));
}

#[test]
fn requester_killed_and_restarted() {
    tell(|mesh, dir| Box::pin(requester_killed::run(mesh, dir)));
}

#[test]
fn the_origin_is_killed_and_its_batch_fetched_from_the_deputy() {
    tell(|mesh, dir| Box::pin(deputy::origin_never_returns(mesh, dir)));
}

#[test]
fn the_origin_returns_without_a_double_grant() {
    tell(|mesh, dir| Box::pin(deputy::origin_returns(mesh, dir)));
}

#[test]
fn two_requesters_on_one_renderer() {
    tell(|mesh, dir| Box::pin(two_requesters::run(mesh, dir)));
}

#[test]
fn link_cut_and_resumed() {
    tell(|mesh, dir| Box::pin(link_cut::run(mesh, dir)));
}

#[test]
fn link_cut_ten_times_and_resumed_each_time() {
    tell(|mesh, dir| Box::pin(link_cut::ten_times(mesh, dir)));
}

#[test]
fn killed_after_join_and_found_again() {
    tell(|mesh, _| Box::pin(membership::killed_after_join(mesh)));
}

#[test]
fn two_studios_invited_at_once() {
    tell(|mesh, _| Box::pin(membership::two_invites_at_once(mesh)));
}

#[test]
fn a_member_admitted_while_another_was_away() {
    tell(|mesh, _| Box::pin(membership::admitted_while_away(mesh)));
}

#[test]
fn the_only_eligible_node_refuses() {
    tell(|mesh, dir| Box::pin(refusal::run(mesh, dir)));
}

#[test]
fn a_renderer_is_revoked_while_sampling() {
    tell(|mesh, dir| Box::pin(trust::renderer_revoked(mesh, dir)));
}

#[test]
fn a_requester_is_revoked_while_its_task_runs() {
    tell(|mesh, dir| Box::pin(trust::requester_revoked(mesh, dir)));
}

#[test]
fn a_node_is_revoked_while_it_is_away() {
    tell(|mesh, _| Box::pin(trust::revoked_while_away(mesh)));
}

#[test]
fn a_node_is_blocked_by_one_studio() {
    tell(|mesh, _| Box::pin(trust::blocked(mesh)));
}

#[test]
fn keys_are_exchanged() {
    tell(|mesh, dir| Box::pin(trust::rotated(mesh, dir)));
}

#[test]
fn the_admins_laptop_is_off_and_then_lost() {
    tell(|mesh, dir| Box::pin(trust::admin_laptop(mesh, dir)));
}

#[cfg(target_os = "linux")]
#[test]
fn a_solo_node_opens_no_socket_but_loopback() {
    tell(|mesh, dir| Box::pin(solo::run(mesh, dir)));
}

#[test]
fn a_studio_lends_what_it_said_and_no_more() {
    tell(|mesh, dir| Box::pin(refusal::lending(mesh, dir)));
}
