package support;

import java.io.IOException;
import java.util.List;
import org.elasticsearch.Build;
import org.elasticsearch.client.internal.node.NodeClient;
import org.elasticsearch.rest.BaseRestHandler;
import org.elasticsearch.rest.RestRequest;
import org.elasticsearch.rest.RestResponse;
import org.elasticsearch.rest.RestStatus;
import org.elasticsearch.xcontent.XContentBuilder;

/** {@code GET /}, which tells clients the version: also a module that this distribution leaves out. */
public class RootHandler extends BaseRestHandler {
    @Override
    public String getName() {
        return "support_root";
    }

    @Override
    public List<Route> routes() {
        return List.of(new Route(RestRequest.Method.GET, "/"), new Route(RestRequest.Method.HEAD, "/"));
    }

    @Override
    protected RestChannelConsumer prepareRequest(RestRequest request, NodeClient client) throws IOException {
        return channel -> {
            XContentBuilder body = channel.newBuilder();
            body.startObject().field("name", client.getLocalNodeId()).field("cluster_name", "nightrank-test");
            body.startObject("version");
            body.field("number", Build.current().version());
            body.field("build_flavor", "default");
            body.field("build_type", "zip");
            body.field("build_hash", Build.current().hash());
            body.field("build_date", Build.current().date());
            body.field("build_snapshot", false);
            body.field("lucene_version", org.apache.lucene.util.Version.LATEST.toString());
            body.endObject();
            body.field("tagline", "You Know, for Search").endObject();
            channel.sendResponse(new RestResponse(RestStatus.OK, body));
        };
    }
}
