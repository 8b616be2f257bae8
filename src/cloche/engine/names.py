"""Names for containers whose users give none: an adjective and a plant."""

from __future__ import annotations

ADJECTIVES = (
    "bold bright calm clear cool crisp deep dewy early fair fresh gentle glad green hardy humble keen late light "
    "lively "
    "lush mellow mild neat noble pale patient plain proud quick quiet rare ripe shady sharp silent slender small soft "
    "steady still sturdy sunny sweet swift tall tender tidy upright vivid warm wild wise young"
).split()
PLANTS = (
    "acacia alder aloe anise arnica ash aspen aster balsam basil bay beech begonia birch bluebell borage bracken "
    "bramble "
    "briar cedar cherry chicory clover clematis columbine cowslip crocus cypress dahlia daisy dill elder elm fennel "
    "fern "
    "fig flax foxglove gentian ginger hawthorn hazel heather hemlock holly hyssop iris ivy jasmine juniper larch "
    "laurel "
    "lavender lilac lily linden lotus lupin maple marigold mint moss myrtle nettle oak olive orchid oregano pansy "
    "peony "
    "pine plum poppy primrose quince rose rowan rue saffron sage sedge sorrel spruce tansy thistle thyme tulip vetch "
    "violet willow yarrow yew"
).split()


def random_name() -> str:
    """Such as `quiet_juniper`; six thousand of them, so callers try again when one is taken."""
    from os import urandom

    number = int.from_bytes(urandom(4), "little")
    return f"{ADJECTIVES[number % len(ADJECTIVES)]}_{PLANTS[number // 4096 % len(PLANTS)]}"
