"""What was counted while files were read, in words."""

from collections.abc import Mapping

SENTENCES = {
    "days_train": "{n} day{s} for training",
    "days_held_out": "{n} day{s} held out",
    "days_straddling": "{n} training day{s} left out: the episode would run into the days held out",
    "days_without_prices": "{n} day{s} of the session file left out: without prices",
    "days_without_sessions": "{n} day{s} of the price file left out: outside the session file",
    "sessions.rows": "{n} row{s} in the session file",
    "sessions.kept": "{n} session{s} kept",
    "sessions.dropped_duplicate_session": "{n} session{s} dropped: the same session_id again",
    "sessions.dropped_short_stay": "{n} session{s} dropped: shorter than a minute",
    "sessions.dropped_zero_energy": "{n} session{s} dropped: no energy asked for",
    "sessions.longer_than_a_day": "{n} session{s} longer than a day: kept",
    "sessions.requests_beyond_power": "{n} session{s} asked for more than the power gives: kept",
    "sessions.requests_beyond_battery": "{n} session{s} asked for more than fits: kept",
    "sessions.delivered_beyond_request": "{n} session{s} received more than asked for: kept",
    "sessions.request_missing": "{n} session{s} without a request: the delivered energy is taken",
    "sessions.declared_missing": "{n} session{s} without a declared departure: the true one counts",
    "sessions.declared_before_arrival": "{n} session{s} with a declared departure before the "
    "arrival: the true one counts",
    "sessions.unclaimed": "{n} session{s} without the driver's input: wishes are what happened",
    "sessions.inputs_revised": "{n} session{s} with revised input: the first counts",
    "sessions.overlaps_on_socket": "{n} session{s} began on a socket still taken: another is given",
    "sessions.columns_ignored": "{n} column{s} of the session file not read; see docs/data.md",
    "sessions.sockets": "{n} socket{s} for the sessions of the file",
    "sessions.placed": "{n} session{s} plugged in, over all days of the split",
    "sessions.turned_away": "{n} session{s} turned away: all {sockets} sockets were taken; raise env.n_sockets",
    "sessions.cut_at_start": "{n} session{s} under way at an episode's start: plugged in there, "
    "with the energy due by then",
    "sessions.cut_at_end": "{n} session{s} beyond an episode's end: still plugged in there",
    "sessions.battery_enlarged": "{n} session{s} given a larger battery than any of "
    "env.session.battery_kwh: the request needs it",
    "sessions.targets_at_full": "{n} session{s} with a target cut to the full battery",
    "sessions.targets_capped": "{n} session{s} with a target cut to what the declared stay delivers",
    "sessions.limits_raised": "{n} session{s} with max_kw below the charger's minimum: raised to it",
    "prices.rows": "{n} row{s} in the price file",
    "prices.days": "{n} complete day{s} of prices",
    "prices.negative_prices": "{n} negative price{s}: kept",
    "prices.unsorted_rows": "{n} price row{s} out of order: sorted",
    "prices.duplicate_rows": "{n} repeated price row{s}: dropped",
    "prices.filled_steps": "{n} missing price{s}: interpolated",
    "prices.filled_gaps": "{n} gap{s} in the prices filled",
    "prices.dst_repeated_hours": "{n} repeated hour{s} (clock change): averaged",
    "prices.dst_missing_hours": "{n} missing hour{s} (clock change): the price before is held",
    "prices.incomplete_edge_days": "{n} incomplete day{s} of prices at an edge: dropped",
    "prices.days_without_price": "{n} day{s} between the first and last have no prices",
}


def report_lines(report: Mapping[str, int]) -> list[str]:
    """One sentence for each count of ``FileDays.report``, in its order; an unknown key as it is."""
    sockets = report.get("sessions.sockets", 0)
    return [
        SENTENCES.get(key, f"{key}: {{n}}").format(n=n, s="" if n == 1 else "s", sockets=sockets)
        for key, n in report.items()
    ]
