"""Splitting patients into parts, as published with the data set or at random; reproducible from the settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from maag.config.data import DataConfig
from maag.data.splits import Patient, Split
from maag.errors import SplitError


def make_split(
    patients: Collection[Patient],
    data: DataConfig,
    split0: Mapping[str, Collection[str]] | None = None,
    foreign_shapes: Collection[str] = (),
) -> Split:
    """Split the `patients` according to `data.split` and `data.supervision`.

    Args:
        patients: those of the data set.
        data: the settings of the split and of supervision.
        split0: the data set's published split by part, if it has one; absent patients are left out. A
            cross-validation does not use it.
        foreign_shapes: patients of another data set that give shapes; then all patients here may be scribbled.

    Raises:
        SplitError: a required part would be empty.
    """
    ids = {patient.patient_id for patient in patients}
    published = None
    if split0 is not None:
        named = {part: sorted(ids & set(split0[part])) for part in ("scribbled", "shapes", "val", "test")}
        published = named if named["scribbled"] and named["shapes"] and named["val"] else None
    if data.split == "split0" and published is None:
        raise SplitError(
            f"data.split=split0: the {len(ids)} patients of the data do not fill its training and validation "
            "parts; use data.split=random"
        )
    if published is not None and data.split != "random" and not data.folds:
        parts, scheme = published, "split0"
    else:
        ordered = sorted(patients, key=lambda patient: patient.patient_id)
        parts = _random_parts(ordered, data, halve=not foreign_shapes)
        scheme = f"random-{data.split_seed}" + (f"-fold-{data.fold}-of-{data.folds}" if data.folds else "")
    if foreign_shapes:
        parts = {**parts, "shapes": sorted(foreign_shapes)}
    roles = _supervised(parts, patients, data)
    return Split(scheme=scheme, **{part: tuple(sorted(members)) for part, members in roles.items()})


def _random_parts(patients: Sequence[Patient], data: DataConfig, *, halve: bool) -> dict[str, list[str]]:
    """Validation and test patients from those with masks; of the others half supervises, and half gives shapes.

    Without `halve` all that can supervise do.
    """
    shuffled = [patients[place] for place in np.random.default_rng(data.split_seed).permutation(len(patients))]
    chosen: dict[str, list[Patient]] = {
        part: [patient for patient in shuffled if patient.part == part and patient.masked] for part in ("val", "test")
    }
    free = [patient for patient in shuffled if patient.part not in ("val", "test")]
    fractions = {"val": data.val_fraction, "test": data.test_fraction}
    counts = {part: round(fraction * len(free)) for part, fraction in fractions.items()}
    if data.folds:
        # Test patients first, so that they are the same in every fold.
        chosen["test"] = chosen["test"] or _can_test(free)[: counts["test"]]
        free = _without(free, chosen["test"])
        chosen["val"] = _fold(_can_validate(free), chosen["val"], data.fold, data.folds)
        free = _without(free, chosen["val"])
    else:
        chosen["val"] = chosen["val"] or _can_validate(free)[: max(1, counts["val"])]
        free = _without(free, chosen["val"])
        chosen["test"] = chosen["test"] or _can_test(free)[: counts["test"]]
        free = _without(free, chosen["test"])
    train, shapes = _supervising_and_shapes(free, data, halve=halve)
    if not chosen["val"] or not (train or shapes):
        needed = "and training one with a scribble" if data.supervision != "dense" else "and training another"
        raise SplitError(
            f"{len(patients)} patients, {sum(patient.masked for patient in patients)} with masks: after "
            f"{len(chosen['val'])} for validation and {len(chosen['test'])} for the test, {len(train)} are left "
            f"to train on; validation needs a patient with a mask {needed}: add patients, or "
            "lower data.val_fraction and data.test_fraction"
        )
    known = {patient.patient_id for patient in (*train, *shapes)}
    parts = {"scribbled": train, "shapes": shapes, **chosen}
    named = {part: [patient.patient_id for patient in members] for part, members in parts.items()}
    return {**named, "unlabelled": [patient.patient_id for patient in free if patient.patient_id not in known]}


def _can_validate(patients: Sequence[Patient]) -> list[Patient]:
    """Patients assigned to training come last."""
    able = [patient for patient in patients if patient.masked and patient.part in (None, "train")]
    return sorted(able, key=lambda patient: patient.part is not None)


def _can_test(patients: Sequence[Patient]) -> list[Patient]:
    return [patient for patient in patients if patient.masked and patient.part is None]


def _without(patients: Sequence[Patient], others: Collection[Patient]) -> list[Patient]:
    return [patient for patient in patients if patient not in others]


def _fold(eligible: Sequence[Patient], assigned: Sequence[Patient], fold: int, folds: int) -> list[Patient]:
    """The patients who validate in `fold`, from 1 to `folds`."""
    if assigned:
        raise SplitError(
            f"data.folds={folds}: the data set assigns {len(assigned)} patients to validation, the first is "
            f"{assigned[0].patient_id}; leave data.folds out, or remove these assignments"
        )
    if len(eligible) < folds:
        raise SplitError(
            f"data.folds={folds}: only {len(eligible)} patients with a mask can validate, and every fold needs one; "
            "lower data.folds or data.test_fraction, or add masks"
        )
    return list(eligible[fold - 1 :: folds])


def _supervising_and_shapes(
    patients: Sequence[Patient], data: DataConfig, *, halve: bool
) -> tuple[list[Patient], list[Patient]]:
    """Patients that supervise, and patients that give shapes; as evenly as their labels allow."""
    masks_alone = [patient for patient in patients if patient.masked and not patient.scribbled]
    scribbles_alone = [patient for patient in patients if patient.scribbled and not patient.masked]
    train = [] if data.supervision == "dense" else scribbles_alone
    shapes = list(masks_alone)
    for patient in (patient for patient in patients if patient.scribbled and patient.masked):
        (shapes if halve and len(train) > len(shapes) else train).append(patient)
    if data.supervision in ("dense", "mixed"):
        # Masks supervise as well, up to the fraction asked for, while as many remain for shapes.
        movable = [*masks_alone, *(patient for patient in shapes if patient.scribbled)]
        for patient in movable:
            with_masks = sum(member.masked for member in train)
            enough = data.supervision == "mixed" and with_masks >= round(data.dense_fraction * len(train))
            if halve and (enough or with_masks >= len(shapes)):
                break
            shapes.remove(patient)
            train.append(patient)
    return train, shapes


def _supervised(
    parts: Mapping[str, list[str]], patients: Collection[Patient], data: DataConfig
) -> dict[str, list[str]]:
    """Assign training patients their roles by `data.supervision`."""
    train, rest = _portion(parts["scribbled"], data.scribbled_fraction, "data.scribbled_fraction", data)
    shapes, _ = _portion(parts["shapes"], data.shapes_fraction, "data.shapes_fraction", data)
    roles = {"shapes": shapes, "val": parts["val"], "test": parts["test"], "unlabelled": parts.get("unlabelled", [])}
    if data.supervision == "dense":
        return {**roles, "dense": train}
    if data.supervision == "semi":
        return {**roles, "scribbled": train, "unlabelled": roles["unlabelled"] + rest}
    if data.supervision == "mixed":
        return {**roles, **_mixed(train, patients, data)}
    return {**roles, "scribbled": train}


def _mixed(train: Sequence[str], patients: Collection[Patient], data: DataConfig) -> dict[str, list[str]]:
    """Masks for a fraction of the patients that have them, and for all that have only masks; scribbles for the rest."""
    masked = {patient.patient_id for patient in patients if patient.masked}
    with_scribbles = {patient.patient_id for patient in patients if patient.scribbled}
    for those, what, instead in ((with_scribbles, "scribbles", "dense"), (masked, "a mask", "weak")):
        if those.isdisjoint(train):
            raise SplitError(
                f"data.supervision=mixed: none of the {len(train)} training patients has {what}; add some, or use "
                f"data.supervision={instead}"
            )
    wanted, others = _portion(train, data.dense_fraction, "data.dense_fraction", data)
    ordered = [*wanted, *others]
    dense = [patient for patient in ordered if patient not in with_scribbles]
    both = [patient for patient in ordered if patient in masked & with_scribbles]
    dense += both[: max(0, len(wanted) - len(dense))]
    scribbled = [patient for patient in ordered if patient not in dense]
    if not scribbled:
        raise SplitError(
            f"data.dense_fraction={data.dense_fraction:g} of {len(train)} patients leaves none with scribbles; "
            "lower it, or use data.supervision=dense"
        )
    return {"dense": dense, "scribbled": scribbled}


def _portion(ids: Sequence[str], fraction: float, setting: str, data: DataConfig) -> tuple[list[str], list[str]]:
    """A random fraction of `ids`, and the rest; a larger fraction includes all of a smaller one."""
    ordered = sorted(ids)
    shuffled = [ordered[place] for place in np.random.default_rng([data.split_seed, 1]).permutation(len(ordered))]
    count = round(fraction * len(shuffled))
    if shuffled and count == 0:
        raise SplitError(
            f"{setting}={fraction:g} of {len(shuffled)} patients leaves none; it must be at least "
            f"{1 / len(shuffled):.3f}"
        )
    return shuffled[:count], shuffled[count:]
