"""Which models of timm and torchvision keep class and keys: python benchmarks/architectures.py

Each model is shrunk, trained for one step and grown back, in a process of its own. Names of models
can be given ('tv:NAME' is torchvision's, 'feat:NAME' is timm's with features_only); all of
`CONVOLUTIONAL` and `ATTENTION` are measured by default. The table shows one line per model:

- same: the pre-train network has the target's class and state-dict keys, and the grown network has
  its class, keys, shapes and finite outputs;
- stand-in: the pre-train network is the imported graph, with the reason;
- refused: one GraphScaleError, with its text;
- failed: anything else, which is a defect.

With --resume, models that the results hold already are not measured again. Weights are the random
ones that the library starts from; nothing is downloaded. Seconds are processor time. Results go to
results/architectures.json. Needs timm and torchvision (any build: only model definitions are used).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
import warnings
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from memory import peak
from rich.console import Console
from rich.table import Table
from turns import record

import graphscale

RESULTS = Path(__file__).parent / "results" / "architectures.json"
SECONDS = 300.0  # for one model
CONVOLUTIONAL = """
resnet18 resnet50 resnet26d resnetaa34d resnetblur18 ecaresnet26t wide_resnet50_2
seresnext26t_32x4d resnet50_clip efficientnet_b0 tf_efficientnet_b0 tf_efficientnetv2_b0
tf_efficientnet_b4 tf_efficientnet_lite1 efficientnetv2_rw_t efficientnet_cc_b0_4e
efficientnet_blur_b0 efficientnet_x_b3 convnext_tiny convnext_zepto_rms_ols mobilenetv1_100
mobilenetv2_050 mobilenetv3_large_100 tf_mobilenetv3_small_100 mobilenetv4_conv_aa_medium
mobilenet_edgetpu_v2_xs regnety_002 regnetz_b16 regnetz_b16_evos vgg16_bn densenet121 inception_v3
inception_v4 xception41 mnasnet_small tf_mixnet_s fbnetv3_b lcnet_035 tinynet_e hardcorenas_a
resnetv2_50 resnetv2_50x1_bit resnetv2_50d_evos resnetv2_50d_frn res2net50_14w_8s
resnest50d_4s2x40d skresnet18 legacy_seresnet18 dla34 dpn48b ghostnetv2_100 ghostnetv3_050
rexnetr_100 selecsls42 gernet_s mobileone_s0 eca_resnet33ts repghostnet_050 vovnet39a cspresnet50
darknetaa53 cs3darknet_s nf_regnet_b0 nf_resnet26 dm_nfnet_f0 nasnetalarge tresnet_m hgnetv2_b0
starnet_s1 inception_next_atto fastvit_t8 fasternet_t0 repvit_m0_9 rdnet_tiny poolformer_s12
focalnet_tiny_srf mobilenetv3_small_100 resnet10t ecaresnetlight seresnet18 resnet18d
efficientnet_b0_gn gc_efficientnetv2_rw_t efficientnet_b1_pruned convnext_zepto_rms
convnext_atto_ols convnext_tiny_hnf mobilenetv3_rw regnetz_005 regnetv_040 xception41p
semnasnet_050 fbnetc_100 res2next50 legacy_senet154 dla46x_c dpn68 eca_resnext26ts seresnext26ts
resnet51q test_byobnet eca_vovnet39b cspresnext50 darknet17 cs3sedarknet_l tresnet_v2_l
poolformerv2_s12 tf_efficientnet_b2 tf_efficientnet_b1 tf_efficientnetv2_b1 tf_efficientnetv2_b3
resnet34 resnet14t resnet33ts resnext50_32x4d resnext26ts gcresnext26ts gcresnet33ts resnetrs50
seresnet33ts resnetblur50 resnet50t regnetx_004 regnety_008_tv regnetz_c16 efficientnet_es
efficientnet_lite0 tf_efficientnet_es tf_efficientnet_cc_b0_4e efficientnetv2_s
efficientnet_b2_pruned mobilenetv3_small_050 mobilenetv4_conv_small mobilenetv4_conv_blur_medium
mobilenetv2_100 mobilenet_edgetpu_100 tf_mobilenetv3_large_minimal_100 fbnetv3_d hardcorenas_c
mixnet_s mixnet_m spnasnet_100 lcnet_050 tinynet_a ghostnet_100 repghostnet_100 rexnet_100
convnext_femto_ols convnextv2_atto inception_resnet_v2 legacy_xception legacy_seresnext26_32x4d
dla60_res2net dla46_c densenetblur121d vgg11 vgg13_bn vgg11_bn selecsls60b hrnet_w18_small
cspdarknet53 cs3darknet_focus_s cs3edgenet_x darknet53 ese_vovnet19b_slim_dw nf_ecaresnet26
nf_seresnet26 nfnet_l0 nf_regnet_b1 resnetv2_50t resnetv2_18 resnetv2_34d hgnet_tiny starnet_s2
fastvit_t12 repvgg_a0 repvit_m1 mobileone_s1 convmixer_1024_20_ks9_p14 convformer_s18
mambaout_femto skresnet34 resnest14d cspresnet50d test_resnet tv:resnet18 tv:convnext_tiny
tv:mobilenet_v2 tv:regnet_y_400mf tv:vgg11 tv:densenet121 tv:squeezenet1_1 tv:mnasnet0_5
tv:googlenet tv:inception_v3 tv:shufflenet_v2_x0_5 tv:alexnet tv:fcn_resnet50
tv:deeplabv3_mobilenet_v3_large tv:lraspp_mobilenet_v3_large tv:resnet50 tv:resnet34
tv:resnext50_32x4d tv:vgg11_bn tv:squeezenet1_0 tv:mobilenet_v3_small tv:efficientnet_b0
tv:efficientnet_v2_s tv:regnet_x_400mf tv:shufflenet_v2_x1_0 tv:mnasnet1_0 tv:deeplabv3_resnet50
feat:resnet18 feat:hrnet_w18_small feat:dla34 feat:efficientnet_b0 feat:mobilenetv3_small_100
feat:regnety_002 feat:ese_vovnet19b_dw feat:mobilenetv4_conv_small feat:convnext_atto
feat:regnetx_002 feat:cspresnet50 feat:efficientnetv2_rw_t starnet_s050 mambaout_tiny hgnetv2_b1
dla60x cs3se_edgenet_x repvgg_b0 resnetaa50d skresnext50_32x4d vovnet57a tf_mixnet_l dpn92
convmixer_768_32 mobilenetv4_conv_large nf_regnet_b4
"""
# Networks in which tokens or windows attend to each other, beside convolutions or without.
ATTENTION = """
mobilenetv4_hybrid_medium_075 mobilevit_xxs mobilevitv2_050 swiftformer_xs caformer_s18
efficientvit_l1 efficientvit_m0 efficientformerv2_s0 iformer_t csatv2 halonet26t lambda_resnet26t
eca_botnext26ts_256 coatnet_nano_rw_224 maxvit_pico_rw_256 levit_128s levit_conv_128s
visformer_tiny pvt_v2_b0 gcvit_xxtiny vitamin_small_224 mobilenetv5_300m efficientvim_m1
lowformer_b0 lambda_resnet26rpt_256 coatnext_nano_rw_224 efficientvit_b0 efficientvit_m1
efficientformer_l1 edgenext_xx_small davit_tiny nextvit_small tiny_vit_5m_224 levit_192
swin_tiny_patch4_window7_224 swin_s3_tiny_224 swinv2_tiny_window8_256 shvit_s1 fastvit_sa12
mobilevit_xs coatnet_pico_rw_224 halonet50ts sehalonet33ts botnet26t_256 bat_resnext26ts
twins_svt_small coat_lite_tiny vit_tiny_r_s16_p8_224 nest_tiny tv:swin_t tv:maxvit_t
sebotnet33ts_256 efficientvit_b1 tiny_vit_11m_224 pit_ti_224 test_vit deit_tiny_patch16_224
beit_base_patch16_224 vit_relpos_small_patch16_224 coatnet_rmlp_nano_rw_224
"""


@dataclass
class Outcome:
    """What became of one model.

    Attributes:
        model: Its name, as on the command line.
        outcome: 'same', 'stand-in', 'refused' or 'failed'.
        reason: The warning or error; also of a class that is kept with its kernels of 3 pixels.
        ratio: Multiplications of the target over those of the pre-train network.
        seconds: Processor time of shrinking.
        megabytes: Peak memory of the process.
    """

    model: str
    outcome: str = "failed"
    reason: str = ""
    ratio: float = 0.0
    seconds: float = 0.0
    megabytes: int = 0
    inputs: list = field(default_factory=list)


def measure(name: str) -> Outcome:
    """Shrink, train and grow one model."""
    found = Outcome(name)
    try:
        torch.manual_seed(0)
        target, size = build(name)
        shapes = {key: value.shape for key, value in target.state_dict().items()}
        started = time.process_time()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                small = graphscale.shrink(target, torch.randn(1, *size))
            except graphscale.GraphScaleError as error:
                found.outcome, found.reason = "refused", str(error)
                return found
            finally:
                found.seconds = round(time.process_time() - started, 2)
        plan = small.graphscale_plan
        found.ratio = round(plan.multiplications()["ratio"], 2)
        found.inputs = [each.pretrain for each in plan.inputs]
        train(small, torch.randn(2, *plan.inputs[0].pretrain[1:]))
        grown = graphscale.grow(small)
        if {key: value.shape for key, value in grown.state_dict().items()} != shapes:
            raise AssertionError("the grown network has other keys or shapes than the target")
        if type(grown) is not type(target):
            raise AssertionError(f"the grown network is a {type(grown).__name__}")
        with torch.no_grad():
            outputs = tensors(grown.eval()(torch.randn(1, *size)))
        if not all(bool(torch.isfinite(each).all()) for each in outputs):
            raise AssertionError("the grown network's outputs are not finite")
        same = type(small) is type(target) and set(small.state_dict()) == set(shapes)
        found.outcome = "same" if same else "stand-in"
        texts = [str(each.message) for each in caught]
        found.reason = "; ".join(text for text in texts if text.startswith(type(target).__name__))
    except Exception as error:  # the table shows it
        found.reason = f"{type(error).__name__}: {error}"
    finally:
        found.megabytes = peak() >> 20
    return found


def build(name: str) -> tuple[torch.nn.Module, tuple[int, ...]]:
    """A model with random weights, and its input's shape without the batch."""
    kind, _, name = name.rpartition(":")
    if kind == "tv":
        import torchvision.models as zoo

        module = zoo.get_model_builder(name).__module__
        dense = "segmentation" in module or "detection" in module
        model = zoo.get_model(name, weights=None, **({"weights_backbone": None} if dense else {}))
        size = 299 if name == "inception_v3" else 224
        return model, (3, size, size)
    import timm

    options = {"features_only": True} if kind == "feat" else {}
    model = timm.create_model(name, pretrained=False, **options)
    return model, tuple(timm.get_pretrained_cfg(name).input_size)


def train(model: torch.nn.Module, images: torch.Tensor) -> None:
    """Forward and backward in training mode; raises unless the loss is finite."""
    loss = sum(each.pow(2).mean() for each in tensors(model.train()(images)))
    loss.backward()
    model.zero_grad(set_to_none=True)
    if not bool(torch.isfinite(loss)):
        raise AssertionError("the pre-train network's loss is not finite")


def tensors(outputs: object) -> list[torch.Tensor]:
    """The floating-point tensors in a network's outputs."""
    leaves = torch.utils._pytree.tree_leaves(outputs)
    return [each for each in leaves if isinstance(each, torch.Tensor) and each.is_floating_point()]


@contextmanager
def optional_operators():
    """A context in which torchvision can be imported without its compiled operators."""
    register = torch.library.register_fake

    def optional(name: str, *arguments, **options):
        if isinstance(name, str) and name.startswith("torchvision::"):
            return lambda function: function
        return register(name, *arguments, **options)

    torch.library.register_fake = optional
    try:
        yield
    finally:
        torch.library.register_fake = register


def in_process(name: str, seconds: float) -> Outcome:
    """`measure` in a forked process, for at most so many seconds."""
    receive, send = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(
        target=lambda: send.send(measure(name)), daemon=True
    )
    process.start()
    send.close()
    try:
        if receive.poll(seconds):
            return receive.recv()
        return Outcome(name, reason=f"no result within {seconds:.0f} s", seconds=seconds)
    except EOFError:
        return Outcome(name, reason="the process ended without a result")
    finally:
        process.kill()
        process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "models", nargs="*", default=(CONVOLUTIONAL + ATTENTION).split(), help="names; default: all"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="limit for one model")
    parser.add_argument("--resume", action="store_true", help="skip models that have a result")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file of results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # threads would not survive the fork
    try:
        with optional_operators():
            import timm  # noqa: F401
            import torchvision.models  # noqa: F401
    except ImportError as error:
        print(f"left out: it needs timm and torchvision ({error})")
        return
    kept = {}
    if arguments.out.exists():
        measured = json.loads(arguments.out.read_text())["models"]["points"]
        kept = {each["model"]: each for each in measured}
    for name in arguments.models:
        if arguments.resume and name in kept:
            continue
        found = in_process(name, arguments.seconds)
        kept[name] = asdict(found)
        print(
            f"{name:32} {found.outcome:9} {found.seconds:6.1f} s  {found.reason[:300]}", flush=True
        )
        record(arguments.out, "models", list(kept.values()))
    show([kept[name] for name in arguments.models])


def show(outcomes: list[dict]) -> None:
    """Print the table and the counts."""
    table = Table("model", "outcome", "multiplications", "seconds", "MB", "reason")
    for each in outcomes:
        ratio = f"{each['ratio']:.2f}×" if each["ratio"] else ""
        numbers = (ratio, f"{each['seconds']:.1f}", str(each["megabytes"]))
        table.add_row(each["model"], each["outcome"], *numbers, each["reason"][:160])
    console = Console()
    console.print(table)
    attention = [each for each in outcomes if each["model"] in ATTENTION.split()]
    for what, group in (("all", outcomes), ("with attention", attention)):
        for outcome, count in Counter(each["outcome"] for each in group).most_common():
            console.print(f"{what}: {outcome} {count} of {len(group)}, {count / len(group):.1%}")


if __name__ == "__main__":
    main()
