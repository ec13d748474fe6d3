// lora-diff score TOKENS

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "lib/base/utf8.h"
#include "lib/moelora.h"
#include "tools/diff/commands.h"
#include "tools/load_options.h"
#include "tools/sizes.h"

namespace moelora {
namespace {

struct ScoreCommand {
  CommonOptions common;
  LoadFlags load;
  ScoreFilesOptions options;
  std::string tokens, memory, precision = "float";

  CLI::App* add(CLI::App& app) {
    CLI::App* sub = app.add_subcommand(
        "score", "Compute log-probabilities of tokens from a model's and an adapter's files alone");
    sub->add_option("TOKENS", tokens,
                    "Token ids: .npy, .json, or any file of log-probabilities that has them")
        ->required();
    add_load_options(*sub, load);
    sub->get_option("--base")->required()->description(
        "Base model with its weights: folder or hub name in the local cache");
    CLI::Option* adapter =
        sub->add_option("--adapter", options.adapter, "Adapter on it: folder or weights file")
            ->type_name("ADAPTER");
    add_server_options(*sub, options, *adapter);
    add_choice(*sub, "--precision", precision, "What is computed with", precision_names());
    sub->add_option("--temperature", options.temperature,
                    "Logits are divided by it (default: what TOKENS says, else 1)")
        ->type_name("X")
        ->check(CLI::PositiveNumber);
    sub->add_option("--memory", memory,
                    "For activations at most; less reads weights more often (default: 2GiB)")
        ->type_name("SIZE");
    sub->add_option("--top", options.top, "Of each position the K most probable tokens too")
        ->type_name("K")
        ->check(CLI::Range(0, 1000));
    add_common_options(*sub, common);
    sub->get_option("--output")
        ->required()
        ->description("Write the scores into FILE (.safetensors, .npz, .json, .jsonl or .csv)");
    sub->footer(
        examples({"lora-diff score tokens.npy --base model --output scores.safetensors",
                  "lora-diff score server.json --base model --adapter trained --precision double "
                  "--top 20 --output scores.json",
                  "lora-diff score tokens.npy --base model --adapter trained --as sglang@0.5.23 "
                  "--output expected.safetensors"}));
    return sub;
  }

  int run() {
    const ScoreWriter& writer = score_writer(common.output);
    std::vector<std::string> inputs = load.inputs();
    inputs.push_back(tokens);
    if (!options.adapter.empty()) inputs.push_back(options.adapter);
    open_output(common, inputs);
    static_cast<LoadOptions&>(options) = load.options();
    options.precision = precision_by_name(precision);
    options.threads = common.threads;
    if (!memory.empty()) options.memory = parse_size("--memory", memory);
    options.job = shown_job(common.quiet);
    const FileScores scored = score_files(tokens, options);
    for (const std::string& note : notes_of(scored, writer)) print_note(common, kDiffTool, note);
    common.report->write(
        writer.write(scored.scores, {options.precision == Precision::f64, scored.temperature}));
    CommonOptions to_stdout = common;
    to_stdout.report = nullptr;
    print_data(to_stdout,
               scoring_text(scored) + fmt::format("wrote {}\n", printable(common.output)));
    return kClean;
  }

  std::vector<std::string> notes_of(const FileScores& scored, const ScoreWriter& writer) const {
    std::vector<std::string> out = scored.notes;
    if (const auto lost = not_held(writer, scored.scores); !lost.empty())
      out.push_back(fmt::format("{} has no place for {}", writer.ending, fmt::join(lost, ", ")));
    return out;
  }
};

}  // namespace

DiffCommand add_score(CLI::App& app) {
  const auto command = std::make_shared<ScoreCommand>();
  return {command->add(app), [command] { return command->run(); }};
}

}  // namespace moelora
