"""peers.py and its parts: what the table claims, what counts as a wrong answer, engines in their own processes.

    python -m unittest discover -s scripts/tests
"""

import contextlib
import io
import json
import os
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from needs import DIFFUSERS, EXPORT, NUMBERS, SCRIPTS, demand, needs

demand(NUMBERS)

import numpy as np

import package
import peer_engines
import peer_networks
import peer_setup
import peers
from peers import Row

QUICK = ("numpy", "onnx", "onnxruntime")


def row(*ms, off=0.0, **more):
    return Row(ms=[*ms], load_ms=10.0, peak_bytes=50_000_000, bare_bytes=30_000_000, max_abs=off, relative_rms=off, **more)


def small_network(work, name="tiny"):
    """y = conv(x) of one channel as tiny.fp32.onnx, and its tiny.io.npz."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    work.mkdir(parents=True, exist_ok=True)
    x, weight = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4), np.full((1, 1, 3, 3), 1 / 3, np.float32)
    ports = [helper.make_tensor_value_info(port, TensorProto.FLOAT, x.shape) for port in ("sample", "epsilon")]
    conv = helper.make_node("Conv", ["sample", "weight"], ["epsilon"], pads=[1, 1, 1, 1])
    graph = helper.make_graph([conv], "tiny", ports[:1], ports[1:], [numpy_helper.from_array(weight, "weight")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), work / f"{name}.fp32.onnx")
    padded = np.pad(x[0, 0], 1)
    answer = sum(padded[i : i + 4, j : j + 4] for i in range(3) for j in range(3))[None, None] / 3
    np.savez(work / f"{name}.io.npz", sample=x, epsilon=answer.astype(np.float32))
    return answer


class Table(unittest.TestCase):
    def results(self, **rows):
        return {("small", "fp32", 1): rows}

    def test_the_ratio_is_that_of_each_round_with_the_fastest_peer(self):
        rows = {"driftglass": row(10, 20, 10), "onnxruntime": row(20, 20, 20), "openvino": row(99, 99, 99)}
        self.assertEqual(peers.ratios(rows["onnxruntime"], rows["driftglass"]), [2, 1, 2])
        self.assertEqual(peers.ratio_cell(rows, "fp32"), "2.00 (1.00 to 2.00) ONNX Runtime")

    def test_a_wrong_answer_is_in_brackets_and_wins_nothing(self):
        rows = {"driftglass": row(10), "onnxruntime": row(20), "openvino": row(1, off=0.5)}
        self.assertEqual(peers.fastest_peer(rows, "fp32"), "onnxruntime")
        self.assertEqual(peers.time_cell(rows["openvino"], "fp32"), "(1.00)")
        rows["driftglass"] = row(1, off=0.5)
        self.assertEqual(peers.ratio_cell(rows, "fp32"), "–")
        self.assertEqual(peers.best_int8({("small", "int8-qdq", 1): rows}, "small", 1).keys(), {"onnxruntime"})

    def test_int8_may_deviate_more_than_fp32(self):
        self.assertFalse(row(1, off=0.05).right("fp32"))
        self.assertTrue(row(1, off=0.05).right("u8-conv-qdq"))

    def test_not_a_number_is_never_right(self):
        found = peers.deviation(np.array([np.nan, 1], np.float32), np.ones(2, np.float32))
        self.assertEqual(found, (np.inf, np.inf))

    def test_deviation_is_relative_to_the_answer(self):
        self.assertEqual(peers.deviation(np.array([5.0, -5.0]), np.array([4.0, -4.0])), (1.0, 0.25))

    def test_the_fastest_int8_file_is_chosen_per_engine(self):
        results = {
            ("small", "fp32", 1): {"driftglass": row(1)},
            ("small", "int8-qdq", 1): {"driftglass": row(4), "onnxruntime": row(20)},
            ("small", "u8-conv-qdq", 1): {"driftglass": row(5), "onnxruntime": row(6), "ncnn": Row(lost="no")},
            ("small", "u8-all-qdq", 2): {"driftglass": row(3), "onnxruntime": row(3)},
        }
        best = peers.best_int8(results, "small", 1)
        self.assertEqual({engine: kind for engine, (_, kind) in best.items()}, {"driftglass": "int8-qdq", "onnxruntime": "u8-conv-qdq"})
        lines = peers.times_table(results, ["driftglass", "onnxruntime", "ncnn"])
        self.assertIn("| small | each one's fastest int8 | 1 | 4.00 int8-qdq | 6.00 u8-conv-qdq | – | 1.50 (1.50 to 1.50) ONNX Runtime |", lines)
        self.assertEqual(len({line.count("|") for line in lines}), 1)

    def test_the_block_names_who_could_not_and_why(self):
        results = self.results(driftglass=row(1), **{"driftglass-walk": row(1)}, ncnn=Row(lost="there was\na reason"))
        about = {"machine": "a machine", "versions": ["ncnn 1"], "date": "today", "rounds": 1, "evaluations": 2, "load": 0.0}
        lines = peers.block(results, list(results["small", "fp32", 1]), {("small", "fp32"): (0.5, 0.25)}, about)
        self.assertIn("- ncnn, fp32: a reason", lines)
        self.assertIn("| small | fp32 | 2.5e-01 (5.0e-01) | 0.0e+00 (0.0e+00) | – |", lines)
        self.assertIn("| small | fp32 | 10 ms, 50 MB | – |", lines)


class Document(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.path = Path(temporary.name) / "docs" / "performance.md"

    def test_only_what_is_between_the_markers_changes(self):
        peers.write(self.path, ["first"])
        text = self.path.read_text()
        self.assertTrue(text.startswith("# Performance\n"))
        self.path.write_text("before\n" + text + "after\n")
        peers.write(self.path, ["second"])
        self.assertEqual(self.path.read_text(), "before\n" + text.replace("first", "second") + "after\n")

    def test_a_document_without_markers_is_left_alone(self):
        self.path.parent.mkdir()
        for text in ("nothing\n", "\n".join(reversed(peers.MARKERS)), "\n".join(peers.MARKERS * 2)):
            self.path.write_text(text)
            with self.assertRaisesRegex(SystemExit, "expected one line"):
                peers.write(self.path, ["lost"])
            self.assertEqual(self.path.read_text(), text)


@needs(QUICK)
class Processes(unittest.TestCase):
    """Engines as peers.py starts them."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.work = Path(temporary.name)
        self.answer = small_network(self.work)
        self.place = self.work, "tiny", "fp32", 1, sorted(os.sched_getaffinity(0))[:1]

    def test_an_engine_loads_runs_answers_and_tells_its_memory(self):
        process = peers.Process("onnxruntime", *self.place)
        self.addCleanup(process.close)
        self.assertGreater(process.loaded["load_ms"], 0)
        self.assertEqual(len(process.ask("run 3")["ms"]), 3)
        process.ask(f"answer {self.work / 'made.npy'}")
        np.testing.assert_allclose(np.load(self.work / "made.npy"), self.answer, rtol=1e-5)
        self.assertGreater(process.ask("memory")["peak_bytes"], process.loaded["bare_bytes"])

    def test_an_engine_is_pinned_before_it_starts_its_threads(self):
        process = peers.Process("onnxruntime", *self.place)
        self.addCleanup(process.close)
        tasks = Path(f"/proc/{process.child.pid}/task")
        for status in tasks.glob("*/status"):
            allowed = status.read_text().split("Cpus_allowed_list:")[1].split()[0]
            self.assertEqual(allowed, str(self.place[-1][0]))

    def test_an_engine_that_ends_is_lost_with_its_last_line(self):
        process = peers.Process("onnxruntime", *self.place)
        self.addCleanup(process.close)
        with self.assertRaisesRegex(peers.Lost, "ended with 1: AssertionError: expected run, answer or memory, got 'dance'"):
            process.ask("dance")
        with self.assertRaisesRegex(peers.Lost, "ended with 1"):
            peers.Process("onnxruntime", self.work, "missing", *self.place[2:])

    def test_a_contest_has_a_row_per_engine_and_round(self):
        loads_and_rounds = {"loads": 2, "rounds": 3, "evaluations": 2}
        refusing = self.program("exit 1", "echo it cannot >&2")
        with mock.patch.dict(os.environ, {peer_engines.PROGRAM: refusing}):
            rows = peers.contest(self.place, ["driftglass", "onnxruntime"], self.answer, **loads_and_rounds)
        self.assertEqual(rows["driftglass"].lost, "it cannot")
        self.assertEqual(len(rows["onnxruntime"].ms), 3)
        self.assertTrue(rows["onnxruntime"].right("fp32"))
        rows = peers.contest(self.place, ["onnxruntime"], 2 * self.answer, **loads_and_rounds)
        self.assertFalse(rows["onnxruntime"].right("fp32"))
        self.assertAlmostEqual(rows["onnxruntime"].relative_rms, 0.5, places=5)

    def test_driftglass_is_asked_for_the_same_file_and_threads(self):
        told = {"median_ms": 7.0, "load_ms": 8.0, "peak_rss_bytes": 9}
        place = self.work, "tiny", "fp32", 2
        with mock.patch.dict(os.environ, {peer_engines.PROGRAM: self.program(f"echo '{json.dumps(told)}'", 'echo "$@" > "$0.asked"')}):
            engine = peer_engines.Driftglass(*place, {})
            self.assertEqual((engine.times_ms(5), engine.load_ms, engine.peak_bytes()), ([7.0], 8.0, 9))
            asked = (self.work / "program.asked").read_text().strip()
            tiny = self.work / "tiny"
            self.assertEqual(asked, f"onnx bench {tiny}.fp32.onnx --inputs {tiny}.io.npz --rounds 5 --json --threads 2")
            peer_engines.DriftglassWalk(self.work, "tiny", "u8-conv-qdq", 2, {}).times_ms(5)
            asked = (self.work / "program.asked").read_text().strip()
            folder = self.work / "packages" / "tiny-u8-conv-qdq"
            self.assertEqual(asked, f"bench --model {folder} --precision int8 --steps 5 --json --threads 2")

    def program(self, *lines):
        """A shell script that does `lines`, the last one first."""
        path = self.work / "program"
        path.write_text("\n".join(["#!/bin/sh", *reversed(lines), ""]))
        path.chmod(0o755)
        return str(path)


class Networks(unittest.TestCase):
    def test_every_file_has_one_package_and_the_first_int8_is_the_networks_own(self):
        work = Path("work")
        places = {peer_networks.package_of(work, "small", kind) for kind in peer_networks.FILES}
        self.assertEqual(len(places), len(peer_networks.FILES))
        own = [kind for kind in peer_networks.FILES if peer_networks.package_of(work, "small", kind)[0] == work / "packages" / "small"]
        self.assertEqual(own, ["fp32", "fp16", "int8-qdq"])

    @needs(EXPORT)
    def test_widening_undoes_the_storing_but_for_its_rounding(self):
        import onnx
        from onnx import numpy_helper

        import half

        with tempfile.TemporaryDirectory() as folder:
            fp32, fp16, widened = (Path(folder) / name for name in ("tiny.fp32.onnx", "fp16.onnx", "widened.onnx"))
            small_network(fp32.parent)
            half.store(fp32, fp16)
            half.widen(fp16, widened)
            graph = onnx.load(widened).graph
        self.assertEqual([node.op_type for node in graph.node], ["Conv"])
        weight = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}["weight"]
        self.assertEqual(weight.dtype, np.float32)
        self.assertTrue(np.all(weight == np.float32(np.float16(1 / 3))))

    @needs(DIFFUSERS)
    def test_random_weights_hide_no_norm_and_answer_about_one(self):
        import torch

        torch.set_num_threads(1)
        settings = peer_networks.UNETS["small"] | {"sample_size": 16, "block_out_channels": (8, 16, 16, 16), "attention_head_dim": 8}
        network = peer_networks.random_unet(settings)
        norms = [module for module in network.modules() if isinstance(module, torch.nn.GroupNorm)]
        self.assertTrue(all(norm.weight.std() > 0.05 and norm.bias.std() > 0.05 for norm in norms))
        answer = network(torch.randn(1, 3, 16, 16), torch.tensor([3]))
        self.assertGreater(answer.std(), 0.3)
        self.assertLess(answer.std(), 3)
        again = peer_networks.random_unet(settings)
        self.assertTrue(all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters())))

    @needs(QUICK)
    def test_every_int8_setting_still_computes_the_network(self):
        manifest = {
            "image": {"channels": 1, "height": 8, "width": 8},
            "network": {"sample": "sample", "timestep": "timestep", "output": "epsilon"},
        }
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            self.two_convolutions(work / "fp32.onnx")
            inputs = peer_networks.made_up_inputs(manifest, peer_networks.CALIBRATION_STEPS[2])  # nothing is clipped
            expected = package.OnnxNetwork(work / "fp32.onnx").session.run(None, inputs)[0]
            for kind in peer_networks.INT8:
                with self.subTest(kind):
                    peer_networks.make_int8(kind, work / "fp32.onnx", work / f"{kind}.onnx", manifest)
                    made = package.OnnxNetwork(work / f"{kind}.onnx").session.run(None, inputs)[0]
                    off = peers.deviation(made, expected)[1]
                    self.assertGreater(off, 1e-5)
                    self.assertLess(off, 0.05)

    def two_convolutions(self, path):
        """epsilon = conv(conv(conv(sample))) + timestep / 1000, as quantize.py leaves the first and the last in float."""
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        rng = np.random.default_rng(0)
        shape, constants = (1, 1, 8, 8), {"thousandth": np.float32([1e-3])}
        names = ["sample", "first", "second", "third"]
        nodes = []
        for source, made in zip(names, names[1:]):
            constants[f"of {made}"] = rng.standard_normal((1, 1, 3, 3)).astype(np.float32)
            nodes.append(helper.make_node("Conv", [source, f"of {made}"], [made], f"conv {made}", pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Cast", ["timestep"], ["t"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", ["t", "thousandth"], ["time"]))
        nodes.append(helper.make_node("Add", ["third", "time"], ["epsilon"]))
        inputs = [
            helper.make_tensor_value_info("sample", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("timestep", TensorProto.INT64, [1]),
        ]
        outputs = [helper.make_tensor_value_info("epsilon", TensorProto.FLOAT, shape)]
        initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
        graph = helper.make_graph(nodes, "three", inputs, outputs, initializers)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


class Arguments(unittest.TestCase):
    def test_help_shows_the_command_line(self):
        with contextlib.redirect_stdout(io.StringIO()) as shown, self.assertRaises(SystemExit):
            peers.main(["--help"])
        self.assertIn("python scripts/peers.py", shown.getvalue())
        self.assertIn("scripts/peers.py", (SCRIPTS / "README.md").read_text())

    def test_unknown_names_and_too_many_threads_are_refused(self):
        for words, sentence in [
            (["--engines", "tflite"], "expected some of driftglass,"),
            (["--files", "fp32,fp8"], "got 'fp8'"),
            (["--threads", "1,4096"], "as many as there are processors"),
        ]:
            with self.subTest(words), contextlib.redirect_stderr(io.StringIO()) as told, self.assertRaises(SystemExit) as ended:
                peers.main(words)
            self.assertEqual(ended.exception.code, 2)
            self.assertIn(sentence, told.getvalue())

    def test_a_missing_program_is_told(self):
        with self.assertRaisesRegex(SystemExit, "nowhere/driftglass: there is no such file"):
            peers.main(["--driftglass", "nowhere/driftglass"])

    def test_the_setup_is_left_where_it_was_entered(self):
        self.assertEqual(peer_setup.wanted_folder(["--rounds", "3", "--setup", "there"]), Path("there"))
        self.assertEqual(peer_setup.wanted_folder(["--setup=there"]), Path("there"))
        self.assertIsNone(peer_setup.wanted_folder(["--rounds", "3"]))
        with mock.patch.object(peer_setup, "install") as install, mock.patch("os.execv") as execute:
            peer_setup.enter(["--setup", sys.prefix])
            self.assertFalse(install.called or execute.called)
            with tempfile.TemporaryDirectory() as folder, mock.patch("venv.create") as create:
                peer_setup.enter(["--setup", folder])
        self.assertTrue(create.called)
        self.assertEqual(install.call_count, 2)
        self.assertEqual(execute.call_args.args[0], Path(folder) / "bin" / "python")


if __name__ == "__main__":
    unittest.main()
