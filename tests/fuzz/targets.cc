#include "tests/fuzz/targets.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace tutti::fuzz {

namespace {

const Target kTargets[] = {
    {"worker_frame", take_worker_frame, frame_seeds},
    {"coordinator_frame", take_coordinator_frame, frame_seeds},
    {"rank_frame", take_rank_frame, frame_seeds},
    {"serve_frame", take_serve_frame, frame_seeds},
    {"fact", take_fact, fact_seeds},
    {"record", take_record, record_seeds},
    {"access", take_access, access_seeds},
    {"handover", take_handover, handover_seeds},
    {"job_query", take_job_query, job_query_seeds},
    {"event_query", take_event_query, event_query_seeds},
    {"job_spec", take_job_spec, job_spec_seeds},
    {"override", take_override, override_seeds},
    {"cluster_config", take_cluster_config, cluster_config_seeds},
    {"completion", take_completion, completion_seeds},
    {"chat", take_chat, chat_seeds},
    {"submit_body", take_submit_body, submit_body_seeds},
    {"cancel_body", take_cancel_body, cancel_body_seeds},
    {"fault_body", take_fault_body, fault_body_seeds},
    {"drain_body", take_drain_body, drain_body_seeds},
    {"token_body", take_token_body, token_body_seeds},
    {"rotation_body", take_rotation_body, rotation_body_seeds},
    {"tokenizer", take_tokenizer, tokenizer_seeds},
    {"safetensors", take_safetensors, safetensors_seeds},
    {"model_config", take_model_config, model_config_seeds},
    {"token_file", take_token_file, token_file_seeds},
    {"greeting", take_greeting, greeting_seeds},
    {"link", take_link, link_seeds},
    {"rings", take_rings, rings_seeds},
    {"join", take_join, join_seeds},
    {"rank_devices", take_rank_devices, rank_devices_seeds},
    {"manifest", take_manifest, manifest_seeds},
    {"fault_file", take_fault_file, fault_file_seeds},
    {"log_file", take_log_file, log_file_seeds},
    {"step_lines", take_step_lines, step_lines_seeds},
    {"up_state", take_up_state, up_state_seeds},
    {"worker_state", take_worker_state, worker_state_seeds},
    {"ports", take_ports, ports_seeds},
    {"next_binary", take_next_binary, next_binary_seeds},
    {"rank_memory", take_rank_memory, rank_memory_seeds},
    {"event_stream", take_event_stream, event_stream_seeds},
    {"metrics", take_metrics, metrics_seeds},
    {"step_index", take_step_index, step_index_seeds},
    {"tensor_index", take_tensor_index, tensor_index_seeds},
    {"quantization", take_quantization, quantization_seeds},
    {"product_choices", take_product_choices, product_choices_seeds},
    {"weight_images", take_weight_images, weight_images_seeds},
};

}  // namespace

std::span<const Target> targets() { return kTargets; }

const Target* find_target(std::string_view name) {
  const auto* at = std::find_if(std::begin(kTargets), std::end(kTargets),
                                [&](const Target& target) { return target.name == name; });
  return at == std::end(kTargets) ? nullptr : at;
}

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: %s\n", what);
  std::abort();
}

}  // namespace tutti::fuzz
