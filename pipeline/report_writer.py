"""Makes the report as soon as a test has ended."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.results_writer import ResultsWriter


class ReportWriter(Callback):
    """Runs ``soundstorm report`` on what ``ResultsWriter`` wrote, and so prints the table at the end of a test.

    Args:
        output_dir: Folder of the report; ``None``: ``report`` in the results folder.
        clips: Utterances on its page, spread evenly.
        worst: How many more, the worst.
    """

    def __init__(self, output_dir: str | Path | None = None, clips: int = 6, worst: int = 6) -> None:
        super().__init__()
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.clips = clips
        self.worst = worst

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Insist on results to report.

        Raises:
            ValueError: The trainer has no ``ResultsWriter``.
        """
        self._results_dir(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep Lightning from printing all numbers once more, in the order of their names."""
        trainer.test_loop.verbose = False

    def _results_dir(self, trainer: Trainer) -> Path:
        writers = [callback for callback in trainer.callbacks if isinstance(callback, ResultsWriter)]  # ty: ignore[missing-attribute]
        if not writers:
            raise ValueError("ReportWriter needs a ResultsWriter among the trainer's callbacks")
        return writers[0].output_dir

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the report."""
        if trainer.is_global_zero:
            from pipeline.report import report  # plotting takes long to import

            results = self._results_dir(trainer)
            report([results], self.output_dir or results / "report", clips=self.clips, worst=self.worst)
