//! A running session: video, sound, input, cursor, clipboard.

use rift_core::FrameId;

use crate::world::World;

/// Frames in slices arrive whole, in order and unchanged.
#[test]
fn video_arrives() {
    let mut world = World::streaming();
    let mut sent = vec![];
    for id in 0..60 {
        for (index, data) in world.submit_frame(id, 42_000, 4).into_iter().enumerate() {
            sent.push((FrameId(id), index as u32, data));
        }
        world.run_ms(16);
    }
    world.run_ms(50);
    assert_eq!(world.clients[0].slices.len(), sent.len());
    assert!(world.clients[0].slices == sent);
    assert!(world.ended().is_empty());
}
