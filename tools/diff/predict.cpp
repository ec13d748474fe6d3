// lora-diff predict TOKENS

#include <CLI/CLI.hpp>
#include <memory>

#include "lib/moelora.h"
#include "tools/diff/commands.h"
#include "tools/load_options.h"
#include "tools/page_origin.h"
#include "tools/sizes.h"

namespace moelora {
namespace {

struct PredictCommand {
  CommonOptions common;
  LoadFlags load;
  PredictOptions options;
  std::string tokens, memory, precision = "float", format = "text";

  CLI::App* add(CLI::App& app) {
    CLI::App* sub = app.add_subcommand(
        "predict", "What servers' handling of an adapter costs, in nats, before one is started");
    sub->add_option("TOKENS", tokens,
                    "Token ids: .npy, .json, or any file of log-probabilities that has them")
        ->required();
    add_load_options(*sub, load);
    sub->get_option("--base")->required()->description(
        "Base model with its weights: folder or hub name in the local cache");
    sub->add_option("--adapter", options.adapter, "Adapter on it: folder or weights file")
        ->type_name("ADAPTER")
        ->required();
    sub->add_option("--as", options.engines,
                    "Server to predict, newest known release unless said "
                    "(repeatable)")
        ->type_name("ENGINE[@VERSION]")
        ->required();
    sub->add_option("--server-option", options.server_pairs,
                    "An option of the server, as lora-validate takes it (repeatable)")
        ->type_name("KEY=VALUE");
    sub->add_option("--max", options.most,
                    "Largest value of a metric that passes; exit 1 above it (repeatable)")
        ->type_name("METRIC=VALUE");
    add_choice(*sub, "--precision", precision, "What is computed with", precision_names());
    sub->add_option("--temperature", options.temperature,
                    "Logits are divided by it (default: what TOKENS says, else 1)")
        ->type_name("X")
        ->check(CLI::PositiveNumber);
    sub->add_option("--memory", memory,
                    "For activations at most; less reads weights more often (default: 2GiB)")
        ->type_name("SIZE");
    add_choice(*sub, "--format", format, "Form of the report", {"text", "json", "html"});
    add_common_options(*sub, common);
    sub->footer(examples(
        {"lora-diff predict tokens.npy --base model --adapter trained --as sglang --as vllm@0.33",
         "lora-diff predict tokens.npy --base model --adapter trained --as sglang --max k2=5e-3",
         "lora-diff predict tokens.npy --base model --adapter trained --as sglang --format html "
         "--output page.html"}));
    return sub;
  }

  int run() {
    std::vector<std::string> inputs = load.inputs();
    inputs.insert(inputs.end(), {tokens, options.adapter});
    open_output(common, inputs);
    static_cast<LoadOptions&>(options) = load.options();
    options.precision = precision_by_name(precision);
    options.threads = common.threads;
    if (!memory.empty()) options.memory = parse_size("--memory", memory);
    options.job = shown_job(common.quiet);
    const PageOrigin origin = page_origin(format);
    const Predictions predictions = predict(tokens, options);
    for (const std::string& note : predictions.notes) print_note(common, kDiffTool, note);
    print_data(common, prediction_report(predictions, format, origin));
    return options.most.empty() || predictions.passes() ? kClean : kFindings;
  }
};

}  // namespace

DiffCommand add_predict(CLI::App& app) {
  const auto command = std::make_shared<PredictCommand>();
  return {command->add(app), [command] { return command->run(); }};
}

}  // namespace moelora
