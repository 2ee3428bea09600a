"""All cases that miss a goal of kernels_goals.py, where its table has the worst one only: a part of kernels_table.py.

    GOAL, WHERE: 3 of 21 miss >= 0.92
        0.50  7b head nn 256x32000x4096 (disturbed)
              its cause, of the worst case

Cases that were not measured there follow, each without a figure.
"""

import kernels_goals


def told(root, places):
    known = kernels_goals.causes(root)
    seen = {}
    for j in kernels_goals.judged(places):
        seen.setdefault(j.goal.name, set()).update(kernels_goals.figures(j.goal, places[j.place, j.path]))
    for j in kernels_goals.judged(places):
        found = kernels_goals.figures(j.goal, places[j.place, j.path])
        absent = sorted(seen[j.goal.name] - set(found))
        if j.missed() or absent:
            yield f"{j.goal.name}, {j.place}: {j.of - j.met} of {j.of} miss {'<=' if j.goal.most else '>='} {j.wanted:g}"
            yield from missing(j, found, places[j.place, j.path], known)
            yield from (f"        -  {case} (not measured there)" for case in absent)


def missing(j, found, cases, known):
    """The worst first."""
    for case in sorted(found, key=found.get, reverse=j.goal.most):
        if found[case] <= j.wanted if j.goal.most else found[case] >= j.wanted:
            continue
        disturbed = any(kernels_goals.disturbed(record) for record in cases[case])
        yield f"    {kernels_goals.number(found[case]):>5}  {case}{' (disturbed)' if disturbed else ''}"
        if case == j.worst:
            cause = kernels_goals.cause_of(j.goal.name, j.place, case, known)
            yield f"           {cause.line() if cause else 'no cause is given'}"
