// Shows the OpenAPI document; the only script of /api/docs beside the bundled Swagger UI.
const place = document.getElementById("api-docs");

window.SwaggerUIBundle({
  url: place.dataset.document,
  domNode: place,
  deepLinking: true,
  docExpansion: "none", // All operations at once take Swagger UI minutes.
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  persistAuthorization: false,
  validatorUrl: null,
});
