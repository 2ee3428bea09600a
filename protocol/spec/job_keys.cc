#include "protocol/spec/job_keys.h"

#include "protocol/spec/job_spec.h"

namespace tutti::spec {

namespace {

constexpr double kMillion =
    1'048'576;  // 2^20: more samples, ranks or tokens than one job here can mean
constexpr double kArrayMax = 100'000;  // tasks that one record holds
constexpr double kStepsMax = 1e15;     // exact in a double, which JSON readers use

constexpr std::string_view kFamilies[] = {"gpt2", "llama"};
constexpr std::string_view kFamiliesLater[] = {"qwen2", "qwen3", "mistral",
                                               "gemma", "bert",  "mixtral"};
constexpr std::string_view kPrecisions[] = {"fp32", "bf16", "fp16", "tf32", "fp8"};
constexpr std::string_view kRecomputes[] = {"none", "selective", "full"};
constexpr std::string_view kOptimizers[] = {"adamw", "adamw8",        "adafactor", "lion",
                                            "muon",  "schedule_free", "sgd"};
constexpr std::string_view kWeights[] = {"auto",     "fp32",     "bf16", "int8", "q8_0",
                                         "fp8_e4m3", "fp8_e5m2", "int4", "q4_0", "q5_0",
                                         "q4_k",     "q5_k",     "q6_k", "nf4"};
constexpr std::string_view kSchedules[] = {"constant", "linear", "cosine"};
constexpr std::string_view kDevices[] = {"any", "cpu", "gpu"};
constexpr std::string_view kDevicesLater[] = {"cuda"};
constexpr std::string_view kOfNode[] = {"wait", "replace", "shrink", "fail"};
constexpr std::string_view kThen[] = {"fail", "queue", "shrink"};
constexpr std::string_view kHangActions[] = {"restart", "fail", "tell"};
constexpr std::string_view kPolicies[] = {"first-fit", "packed", "spread"};
constexpr std::string_view kPreemptible[] = {"auto", "always", "never"};
constexpr std::string_view kArrayShorthand[] = {"array.count"};
constexpr std::string_view kRanksShorthand[] = {"resources.ranks.min", "resources.ranks.max"};

using J = JobSpec;
using M = ModelSpec;
using D = DataSpec;
using T = TrainSpec;
using R = ResourceSpec;
constexpr Kinds kModel = kTrain | kServe;

// `kind` is read before the others, since it decides which of them belong; it has no row.
const Key kKeys[] = {
    {"name", form(Form::name), kEvery, kRequired, reach<&J::name>,
     "what lists and metrics call the job"},

    {"model.path", form(Form::text), kModel, kOptional, reach<&J::model, &M::path>,
     "a Hugging Face model directory or a checkpoint, instead of the shape of a new model"},
    {"model.family", choice(kFamilies, kFamiliesLater), kTrain, kOptional,
     reach<&J::model, &M::family>, "the architecture of a new model"},
    {"model.layers", whole(1, 1024), kTrain, kOptional, reach<&J::model, &M::layers>,
     "decoder layers"},
    {"model.width", whole(2, 65'536), kTrain, kOptional, reach<&J::model, &M::width>,
     "hidden size, a multiple of heads"},
    {"model.heads", whole(1, 1024), kTrain, kOptional, reach<&J::model, &M::heads>,
     "attention heads"},
    {"model.kv_heads", whole(0, 1024), kTrain, kOptional, reach<&J::model, &M::kv_heads>,
     "key and value heads, a divisor of heads; 0: as many as heads"},
    {"model.feed_forward", whole(0, kMillion), kTrain, kOptional,
     reach<&J::model, &M::feed_forward>,
     "inner size of the feed-forward part; 0: 8/3 of width, rounded up to a multiple of 64 "
     "(gpt2: 4 widths)"},
    {"model.vocabulary", whole(1, 16'777'216), kTrain, kOptional, reach<&J::model, &M::vocabulary>,
     "token ids that the model knows"},
    {"model.rope_theta", number(1, 1e9), kTrain, kOptional, reach<&J::model, &M::rope_theta>,
     "base of the rotary positions"},
    {"model.norm_epsilon", number(1e-12, 1), kTrain, kOptional, reach<&J::model, &M::norm_epsilon>,
     "added under the root of the norm"},
    {"model.tied", form(Form::flag), kTrain, kOptional, reach<&J::model, &M::tied>,
     "whether the input and output embeddings are one"},

    {"data.text", form(Form::texts), kTrain, kOptional, reach<&J::data, &D::text>,
     "text files, or"},
    {"data.tokens", form(Form::texts), kTrain, kOptional, reach<&J::data, &D::tokens>,
     "token files: .npy of uint16, uint32 or int32"},
    {"data.tokenizer", form(Form::text), kTrain, kOptional, reach<&J::data, &D::tokenizer>,
     "tokenizer.json; else the model's, else one trained on the text with the model's vocabulary"},
    {"data.sequence", whole(1, kMillion), kTrain, kRequired, reach<&J::data, &D::sequence>,
     "tokens a sample"},
    {"data.shuffle", form(Form::flag), kTrain, kOptional, reach<&J::data, &D::shuffle>,
     "whether samples come in an order drawn from the seed"},

    {"train.steps", whole(1, kStepsMax), kTrain, kRequired, reach<&J::train, &T::steps>,
     "optimizer steps of the whole schedule"},
    {"train.batch", whole(1, kMillion), kTrain, kRequired, reach<&J::train, &T::batch>,
     "samples a step, over all ranks"},
    {"train.micro", whole(0, kMillion), kTrain, kOptional, reach<&J::train, &T::micro>,
     "samples at a time in one rank; 0: automatic; the result is the same"},
    {"train.seed", whole(0, kStepsMax), kTrain, kOptional, reach<&J::train, &T::seed>,
     "of the weights and the order of samples"},
    {"train.precision", choice(kPrecisions), kTrain, kOptional, reach<&J::train, &T::precision>,
     "what products read: fp32, or rounded to bf16 (attention too) or fp16 (losses are scaled), or "
     "to TF32 by GPUs; fp8 is bf16 but for layers' products forward and to their inputs, on GPUs "
     "that have it"},
    {"train.scaling.first", whole(1, 32'768), kTrain, kOptional,
     reach<&J::train, &T::scaling, &ScalingSpec::first>,
     "scale of the losses in fp16 at first, a power of two; halved by each step that is skipped"},
    {"train.scaling.every", whole(0, kStepsMax), kTrain, kOptional,
     reach<&J::train, &T::scaling, &ScalingSpec::every>,
     "good steps in a row after which that scale is doubled; 0: never"},
    {"train.pad_vocabulary", whole(0, 65'536), kTrain, kOptional,
     reach<&J::train, &T::pad_vocabulary>,
     "rows of the output head in a GPU's memory are a multiple of this; 0: as many as the "
     "vocabulary; in files nothing changes"},
    {"train.recompute", choice(kRecomputes), kTrain, kOptional, reach<&J::train, &T::recompute>,
     "what backward runs again in place of keeping it: nothing, what takes no product, or all but "
     "each layer's input; less memory for more time, and the same result"},
    {"train.dropout", number(0, 0.999), kTrain, kOptional, reach<&J::train, &T::dropout>,
     "share of the embeddings, and of what each layer's two parts add, that is dropped"},
    {"train.clip", number(0, 1e6), kTrain, kOptional, reach<&J::train, &T::clip>,
     "largest norm of the gradients; 0: off"},
    {"train.optimizer.name", choice(kOptimizers), kTrain, kOptional,
     reach<&J::train, &T::optimizer, &OptimizerSpec::name>, "the optimizer"},
    {"train.optimizer.rate", number(0, 1e3), kTrain, kOptional,
     reach<&J::train, &T::optimizer, &OptimizerSpec::rate>, "peak learning rate"},
    {"train.optimizer.betas", numbers(0, 0.999999), kTrain, kOptional,
     reach<&J::train, &T::optimizer, &OptimizerSpec::betas>,
     "decay of the two moments; the first: momentum of sgd and muon"},
    {"train.optimizer.epsilon", number(1e-30, 1), kTrain, kOptional,
     reach<&J::train, &T::optimizer, &OptimizerSpec::epsilon>,
     "added to the root of the second moment"},
    {"train.optimizer.decay", number(0, 1e3), kTrain, kOptional,
     reach<&J::train, &T::optimizer, &OptimizerSpec::decay>, "weight decay, of matrices only"},
    {"train.schedule.name", choice(kSchedules), kTrain, kOptional,
     reach<&J::train, &T::schedule, &ScheduleSpec::name>, "how the rate falls"},
    {"train.schedule.warmup", whole(0, kStepsMax), kTrain, kOptional,
     reach<&J::train, &T::schedule, &ScheduleSpec::warmup>, "steps in which the rate rises"},
    {"train.schedule.floor", number(0, 1), kTrain, kOptional,
     reach<&J::train, &T::schedule, &ScheduleSpec::floor>, "last rate as a share of the peak"},
    {"train.resume", form(Form::text), kTrain, kOptional, reach<&J::train, &T::resume>,
     "checkpoint folder (.../step-N) to go on from"},
    {"train.stop", whole(0, kStepsMax), kTrain, kOptional, reach<&J::train, &T::stop>,
     "end after this step although the schedule goes on; 0: steps"},

    {"parallel.data", whole(0, kMillion), kTrain, kOptional,
     reach<&J::parallel, &ParallelSpec::data>, "ranks; 0: as many as resources allow"},
    {"parallel.shards", whole(0, kMillion), kTrain, kOptional,
     reach<&J::parallel, &ParallelSpec::shards>,
     "logical shards of a batch, a power of two; 0: the largest that is <= min(8, batch)"},

    {"serve.name", form(Form::name), kServe, kOptional, reach<&J::serve, &ServeSpec::name>,
     "what clients ask for; else the job's name"},
    {"serve.batch_max", whole(1, 4096), kServe, kOptional, reach<&J::serve, &ServeSpec::batch_max>,
     "requests decoded together"},
    {"serve.tokens_max", whole(0, kMillion), kServe, kOptional,
     reach<&J::serve, &ServeSpec::tokens_max>, "context limit; 0: the model's"},
    {"serve.weights", choice(kWeights), kServe, kOptional, reach<&J::serve, &ServeSpec::weights>,
     "how the model's matrices are kept: fewer bits, less memory and more tokens a second; auto: "
     "a file's own codes where it has some, with the bits of fp32"},

    {"command", form(Form::texts), kRun, kRequired, reach<&J::command>,
     "the program and its arguments"},
    {"env", form(Form::text_map), kRun, kOptional, reach<&J::env>,
     "environment variables of the program"},
    {"folder", form(Form::text), kRun, kOptional, reach<&J::folder>,
     "working directory; else the job's folder"},

    {"resources.device", choice(kDevices, kDevicesLater), kEvery, kOptional,
     reach<&J::resources, &R::device>, "kind of device that ranks run on"},
    {"resources.ranks.min", whole(1, kMillion), kEvery, kOptional,
     reach<&J::resources, &R::ranks_min>, "fewest ranks to start with (`ranks: 2` sets both)"},
    {"resources.ranks.max", whole(1, kMillion), kEvery, kOptional,
     reach<&J::resources, &R::ranks_max>, "most ranks"},
    {"resources.threads", whole(0, 4096), kModel, kOptional, reach<&J::resources, &R::threads>,
     "threads a rank; 0: the cores of its slot"},
    {"resources.cores", whole(0, 4096), kRun, kOptional, reach<&J::resources, &R::cores>,
     "cores a rank; 0: those of its slot"},
    {"resources.memory", form(Form::bytes), kEvery, kOptional,
     reach<&J::resources, &R::memory_bytes>, "memory a rank; 0: not limited"},
    {"resources.device_memory", form(Form::bytes), kEvery, kOptional,
     reach<&J::resources, &R::device_memory_bytes>,
     "memory that a rank's GPU has, at least; 0: any"},
    {"resources.labels", form(Form::text_map), kEvery, kOptional, reach<&J::resources, &R::labels>,
     "labels that a node must have"},
    {"resources.prefer", form(Form::text_map), kEvery, kOptional, reach<&J::resources, &R::prefer>,
     "labels that a node had better have"},
    {"resources.policy", choice(kPolicies), kEvery, kOptional, reach<&J::resources, &R::policy>,
     "on which nodes ranks go first: by name, where they fill up, or one a node"},

    {"checkpoint.every", whole(0, kStepsMax), kTrain, kOptional,
     reach<&J::checkpoint, &CheckpointSpec::every>, "steps between checkpoints; 0: only the last"},
    {"checkpoint.keep", whole(0, kMillion), kTrain, kOptional,
     reach<&J::checkpoint, &CheckpointSpec::keep>, "newest checkpoints to keep; 0: all"},
    {"checkpoint.last", form(Form::flag), kTrain, kOptional,
     reach<&J::checkpoint, &CheckpointSpec::last>, "whether the last step leaves a checkpoint"},

    {"on_loss.of_node", choice(kOfNode), kEvery, kOptional,
     reach<&J::on_loss, &OnLossSpec::of_node>,
     "what happens when ranks are lost with their node; run: replace or fail"},
    {"on_loss.wait", form(Form::duration), kEvery, kOptional,
     reach<&J::on_loss, &OnLossSpec::wait_ms>,
     "how long to wait for the node, or for other slots; meanwhile its slots are held, and it goes "
     "first"},
    {"on_loss.then", choice(kThen), kEvery, kOptional, reach<&J::on_loss, &OnLossSpec::then>,
     "what happens after that wait; else fail for `wait`, queue for the others; run: fail or "
     "queue"},
    {"retries.user", whole(0, kMillion), kEvery, kOptional, reach<&J::retries, &RetriesSpec::user>,
     "restarts after the job's own failures"},
    {"retries.infrastructure", whole(0, kMillion), kEvery, kOptional,
     reach<&J::retries, &RetriesSpec::infrastructure>, "restarts after lost ranks and nodes"},
    {"retries.preemptions", whole(0, kMillion), kEvery, kOptional,
     reach<&J::retries, &RetriesSpec::preemptions>,
     "after so many preemptions nobody preempts it any more; 0: no limit"},
    {"retries.on", form(Form::text_maps), kEvery, kOptional, reach<&J::retries, &RetriesSpec::on>,
     "whose failure an exit code or a text in the log is: [{code: 75, class: infrastructure}]"},
    {"retries.backoff.first", form(Form::duration), kEvery, kOptional,
     reach<&J::retries, &RetriesSpec::backoff_first_ms>,
     "wait before the second try in a row, doubled each time; 0: none"},
    {"retries.backoff.max", form(Form::duration), kEvery, kOptional,
     reach<&J::retries, &RetriesSpec::backoff_max_ms>, "longest such wait"},
    {"retries.backoff.jitter", number(0, 1), kEvery, kOptional,
     reach<&J::retries, &RetriesSpec::backoff_jitter>, "share of the wait that is chance"},
    {"hang.after", form(Form::duration), kTrain | kServe, kOptional,
     reach<&J::hang, &HangSpec::after_ms>,
     "how long a rank may stand still; 0: by the ranks' own pace"},
    {"hang.action", choice(kHangActions), kTrain | kServe, kOptional,
     reach<&J::hang, &HangSpec::action>, "what happens then"},
    {"priority", whole(-1'000'000, 1'000'000), kEvery, kOptional, reach<&J::priority>,
     "higher goes first"},
    {"preemptible", choice(kPreemptible), kEvery, kOptional, reach<&J::preemptible>,
     "whether jobs of higher priority may take its slots; auto: if it is a train job"},
    {"after.ok", wholes(1, kStepsMax), kEvery, kOptional, reach<&J::after, &AfterSpec::ok>,
     "jobs that must be done first"},
    {"after.failed", wholes(1, kStepsMax), kEvery, kOptional, reach<&J::after, &AfterSpec::failed>,
     "jobs that must have failed first"},
    {"after.any", wholes(1, kStepsMax), kEvery, kOptional, reach<&J::after, &AfterSpec::any>,
     "jobs that must have ended first, in whatever way"},
    {"begin", form(Form::time), kEvery, kOptional, reach<&J::begin_unix_ms>,
     "not started before this time"},
    {"delay", form(Form::duration), kEvery, kOptional, reach<&J::delay_ms>,
     "not started before so long after the submit"},
    {"array.count", whole(0, kArrayMax), kRun, kOptional, reach<&J::array, &ArraySpec::count>,
     "tasks of this job; ${index} in command, env and folder is each one's number, from 0"},
    {"array.at_once", whole(0, kArrayMax), kRun, kOptional, reach<&J::array, &ArraySpec::at_once>,
     "tasks at a time; 0: as many as there is room for"},
    {"limit.time", form(Form::duration), kEvery, kOptional, reach<&J::limit, &LimitSpec::time_ms>,
     "longest time running, without what it waits in the queue; 0: none"},
    {"limit.queued", form(Form::duration), kEvery, kOptional,
     reach<&J::limit, &LimitSpec::queued_ms>,
     "longest wait for room, anew each time that it is queued; 0: none"},
    {"stop_after", form(Form::patience), kRun, kOptional, reach<&J::stop_after_ms>,
     "how long programs go on without a word of the coordinator, or never to end them"},
};

const Shorthand kShorthands[] = {
    {"parallel", "auto", {}},
    {"resources.ranks", "", kRanksShorthand},
    {"array", "", kArrayShorthand},
};

constexpr LaterKey kLater[] = {
    {"parallel.tensor"},  {"parallel.pipeline"}, {"parallel.shard"}, {"parallel.redundancy"},
    {"parallel.context"}, {"parallel.expert"},   {"evaluate"},       {"user"}};

const Table kTable = {kKeys, kShorthands, kLater};

}  // namespace

const Table& job_table() { return kTable; }

}  // namespace tutti::spec
