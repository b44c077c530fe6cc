"""The chaos suite: real processes under load, killed at random; then every effect is counted.

    make chaos ARGS="--faults 200 --runs 1000 --seed 7"
    make soak ARGS="--minutes 15"

`chaos.stack` runs the processes and restarts what is killed, `chaos.load` calls them,
`chaos.faults` breaks them, `chaos.checks` compares what callers were told with what is there.
"""
