"""The embedded NATS keeps its port and its streams between runs, and can be lost on purpose."""

import nats

from services.kernel.testing import eventually


async def stream_names(url):
    connection = await nats.connect(url)
    try:
        return sorted(info.config.name for info in await connection.jetstream().streams_info())
    finally:
        await connection.close()


async def add_stream(url, name):
    connection = await nats.connect(url)
    try:
        await connection.jetstream().add_stream(name=name, subjects=[f"{name}.>"])
        await connection.jetstream().publish(f"{name}.a", b"hello")
    finally:
        await connection.close()


async def test_streams_outlive_a_killed_server_on_the_same_port(own_nats):
    url = own_nats.url
    await add_stream(url, "kept")
    own_nats.kill()
    own_nats.start()

    assert own_nats.url == url
    assert await stream_names(url) == ["kept"]


async def test_a_wiped_server_has_no_stream(own_nats):
    await add_stream(own_nats.url, "lost")
    own_nats.kill()
    own_nats.wipe()
    own_nats.start()

    assert await stream_names(own_nats.url) == []


async def test_a_message_of_four_megabytes_fits(own_nats):
    connection = await nats.connect(own_nats.url)
    try:
        assert connection.max_payload >= 4 * 1024 * 1024
    finally:
        await connection.close()


async def test_one_test_leaves_a_stream(nats_url):
    await add_stream(nats_url, "left")

    await eventually(lambda: assert_names(nats_url, ["left"]))


async def test_the_next_finds_none(nats_url):
    assert await stream_names(nats_url) == []


async def assert_names(url, expected):
    assert await stream_names(url) == expected
